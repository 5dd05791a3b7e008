"""The ends of a program's connections: protocols, bare sockets, streams."""

from __future__ import annotations

import asyncio
import contextlib
import socket
import struct
import sys
from itertools import takewhile
from typing import Any

from diff_machine import Machine, Provoked, named

from fastloop import _core

PERIOD = 251
#: Bytes of which the kernel may not take all.
BULK = 20_000
#: What asyncio looks at no more once it has the buffer; see allowed.toml.
UNSAFE_IN_GET_BUFFER = frozenset(
    {"pause", "close", "abort", "protocol", "write", "lines"}
)
#: Whether connection_lost comes once and later then; see allowed.toml.
ENDS_IN_RESUME = sys.version_info >= (3, 14)
_PATTERN = bytes(range(PERIOD)) * 2000


def piece(position: int, size: int) -> bytes:
    """Return what a stream has at a position."""
    start = position % PERIOD
    return _PATTERN[start : start + size]


def write_lines(transport: Any, lines: list[bytes]) -> None:
    """Call writelines, which asyncio has mended; see allowed.toml."""
    old = (3, 12) <= sys.version_info[:2] <= (3, 13)
    if not old or isinstance(transport, _core.StreamTransport):
        transport.writelines(lines)
        return
    lost = transport._conn_lost
    transport.writelines([] if lost else [line for line in lines if line])
    transport._maybe_pause_protocol()


class Side:
    """What both kinds of ends share: the bytes, checked and counted."""

    peer: Any = None
    aborted = False
    wrong = False

    def __init__(self, machine: Machine, name: str) -> None:
        self.machine = machine
        self.name = name
        self.written = 0
        self.tried = 0
        self.received = 0
        self.shown = 0
        self.made = machine.loop.create_future()

    def log(self, text: str) -> None:
        self.machine.log(text, self.name)

    def next_piece(self, size: int) -> bytes:
        data = piece(self.written, size)
        self.written += size
        return data

    def take(self, data: bytes) -> None:
        right = piece(self.received, len(data))
        if bytes(data) != right and not self.wrong:
            self.wrong = True
            pairs = zip(data, right, strict=False)
            same = takewhile(lambda pair: pair[0] == pair[1], pairs)
            self.log(f"WRONG BYTES at {self.received + len(list(same))}")
        self.received += len(data)
        self.machine.activity += 1

    @property
    def bulky(self) -> bool:
        """Whether what the kernel holds may matter for counts."""
        return max(self.tried, self.peer.tried) > BULK

    @property
    def gone(self) -> bool:
        """Whether this side is closed, by whatever."""
        return False

    @property
    def uncertain(self) -> bool:
        return self.bulky and (self.gone or self.peer.gone)

    def act(self, op: Any) -> None:
        """Do one thing, written down in the strand of this end."""
        name, *args = op
        with self.machine.strand(self.name):
            try:
                getattr(self, f"do_{name}")(*args)
            except Exception as exc:
                if isinstance(exc, Provoked):
                    raise
                self.log(f"{name} raised {named(exc)}")

    def do_soon(self, ops: list[Any]) -> None:
        with self.machine.strand(self.name):
            self.machine.loop.call_soon(self.run, ops)

    def run(self, ops: list[Any]) -> None:
        for op in ops:
            self.act(op)

    def do_raise(self, kind: str) -> None:
        self.machine.do_raise(kind)

    def release(self) -> None:
        pass

    def expects(self) -> bool:
        return False


class RawEnd(Side):
    """A socket that the program itself reads and writes."""

    sock: socket.socket | None = None
    closed = False

    def attach(self, sock: socket.socket) -> None:
        sock.setblocking(False)
        self.sock = sock
        if not self.made.done():
            self.made.set_result(None)

    def factory(self) -> Any:
        """Be accepted all the same: by a protocol that only counts."""
        end = End(self.machine, self.name, ("plain", [], True))
        end.peer = self.peer
        self.peer.peer = end
        self.machine.ends[self.machine.ends.index(self)] = end
        end.made = self.made
        return end.factory()

    def act(self, op: Any) -> None:
        super().act(op)
        self.machine.look_now()

    def do_write(self, size: int) -> None:
        if self.sock is None:
            return
        size = min(size, 4000)
        try:
            sent = self.sock.send(self.next_piece(size)) if size else 0
        except OSError as exc:
            self.log(f"send {named(exc)}")
        else:
            self.written -= size - sent

    def do_drain(self) -> None:
        """Take all that is there."""
        while self.sock is not None:
            try:
                data = self.sock.recv(65536)
            except BlockingIOError:
                return
            except OSError as exc:
                self.log(f"recv {named(exc)}")
                return
            if not data:
                self.log(f"end of stream after {self.received}")
                return
            self.take(data)

    def do_eof(self) -> None:
        if self.sock is not None:
            with contextlib.suppress(OSError):
                self.sock.shutdown(socket.SHUT_WR)

    @property
    def gone(self) -> bool:
        return self.closed

    def do_close(self) -> None:
        if self.sock is not None:
            self.closed = True
            self.sock.close()
            self.sock = None

    def do_abort(self) -> None:
        self.aborted = True
        if self.sock is not None:
            with contextlib.suppress(OSError):
                self.sock.setsockopt(
                    socket.SOL_SOCKET,
                    socket.SO_LINGER,
                    struct.pack("ii", 1, 0),
                )
            self.do_close()

    def __getattr__(self, name: str) -> Any:
        if name.startswith("do_"):
            return lambda *args: None
        raise AttributeError(name)

    def after_step(self) -> None:
        if self.received != self.shown and not self.bulky:
            self.shown = self.received
            self.log(f"{self.received} bytes")

    def finish(self) -> None:
        self.do_close()

    def release(self) -> None:
        self.do_close()


class End(Side):
    """An end that is a transport and its protocol.

    ``conf`` is (kind, reactions, keep): kind "plain" or "buffered", reactions
    a list of (event, operations), each run once, and whether eof_received
    keeps the connection open.
    """

    def __init__(self, machine: Machine, name: str, conf: Any) -> None:
        super().__init__(machine, name)
        self.kind, reactions, self.keep = conf
        self.reactions = {event: list(ops) for event, ops in reactions}
        self.transport: Any = None
        self.paused = False
        self.ended = False
        self.lost = False
        self.closed = False
        self.raised = False

    def factory(self) -> Any:
        return Protocols.make(self, self.kind)

    def opened(self, transport: Any) -> None:
        if transport is not self.transport:
            self.log("another transport")

    def react(
        self,
        event: str,
        show: str | None = None,
        without: frozenset[str] = frozenset(),
    ) -> None:
        """Write an event down and do what the program says to it."""
        if show != "":
            self.log(event if show is None else show)
        if event == "get_buffer" and self.uncertain:
            return
        for op in self.reactions.pop(event, []):
            if op[0] not in without:
                self.act(op)

    def release(self) -> None:
        self.transport = None
        self.peer = None
        self.reactions.clear()

    def expects(self) -> bool:
        """Whether more of what the peer wrote is sure to come."""
        return (
            self.transport is not None
            and not self.gone
            and (self.peer.closed or not self.peer.gone)
            and not self.peer.aborted
            and self.transport.is_reading()
            and self.received < self.peer.written
        )

    def after_step(self) -> None:
        if self.transport is None:
            return
        # The kernel decides where in a stream a pause comes.
        unsure = self.uncertain or (
            self.bulky and not self.transport.is_reading()
        )
        count = "" if unsure else f" {self.received}"
        state = (
            f"closing={self.transport.is_closing()}"
            f" reading={self.transport.is_reading()}"
        )
        self.log(f"has{count} {state}")
        if not self.lost and not self.bulky:
            size = self.transport.get_write_buffer_size()
            self.log(f"waiting {size} paused {self.paused}")

    @property
    def gone(self) -> bool:
        return self.closed or (
            self.transport is not None and self.transport.is_closing()
        )

    def finish(self) -> None:
        if self.transport is not None and not self.lost:
            self.closed = True
            self.transport.abort()

    # -- operations ---------------------------------------------------------

    def act(self, op: Any) -> None:
        if self.transport is None and op[0] != "raise":
            return
        super().act(op)

    def do_write(self, size: int) -> None:
        self.tried += size
        if self.transport.is_closing():
            self.transport.write(b"z" * size)
            return
        data = self.next_piece(size)
        try:
            self.transport.write(
                bytearray(data) if size % 2 else memoryview(data)
            )
        except RuntimeError:
            self.written -= size
            raise

    def do_lines(self, sizes: list[int]) -> None:
        self.tried += sum(sizes)
        if self.transport.is_closing():
            write_lines(self.transport, [b"z" * size for size in sizes])
            return
        before = self.written
        lines = [self.next_piece(size) for size in sizes]
        try:
            write_lines(self.transport, lines)
        except RuntimeError:
            self.written = before
            raise

    def do_eof(self) -> None:
        self.transport.write_eof()

    def do_close(self) -> None:
        self.closed = True
        self.transport.close()
        self.log(f"close {self.transport.is_closing()}")

    def do_abort(self) -> None:
        self.closed = self.aborted = True
        self.transport.abort()
        self.log(f"abort {self.transport.is_closing()}")

    def do_pause(self) -> None:
        self.transport.pause_reading()
        self.log(f"pause {self.transport.is_reading()}")

    def do_resume(self) -> None:
        self.transport.resume_reading()
        self.log(f"resume {self.transport.is_reading()}")

    def do_limits(self, high: int | None, low: int | None) -> None:
        self.transport.set_write_buffer_limits(high, low)
        self.log(f"limits {self.transport.get_write_buffer_limits()}")

    def do_protocol(self, kind: str) -> None:
        self.kind = kind
        self.transport.set_protocol(Protocols.make(self, kind))
        same = type(self.transport.get_protocol()).__name__
        self.log(f"protocol {same}")

    def do_info(self) -> None:
        get = self.transport.get_extra_info
        sock = get("socket")
        names = [get(name) for name in ("sockname", "peername", "nothing")]
        kinds = [type(name).__name__ for name in names]
        fileno = sock is not None and sock.fileno() >= 0
        self.log(f"info {type(sock).__name__} {kinds} {fileno}")

    def do_bad(self, what: Any) -> None:
        """Write what is no bytes."""
        self.transport.write(what)

    def do_drain(self) -> None:
        self.log(f"can eof {self.transport.can_write_eof()}")


class Protocols:
    """The protocols that stand between a transport and its end."""

    class Base:
        def __init__(self, end: End) -> None:
            self.end = end

        def connection_made(self, transport: Any) -> None:
            from diff_network import shrink

            self.end.transport = transport
            shrink(transport.get_extra_info("socket"))
            if not self.end.made.done():
                self.end.made.set_result(None)
            self.end.react("made")

        def pause_writing(self) -> None:
            self.flow("pause_writing", True)

        def resume_writing(self) -> None:
            self.flow("resume_writing", False)

        def flow(self, event: str, paused: bool) -> None:
            end = self.end
            if end.paused == paused:
                end.log(f"{event} twice")
            end.paused = paused
            end.machine.log(event, f"{end.name} flow")
            ends = () if paused or ENDS_IN_RESUME else ("close", "abort")
            for op in end.reactions.pop(event, []):
                if op[0] not in ends:
                    end.act(op)

        def eof_received(self) -> bool:
            if self.end.ended:
                self.end.log("eof again")
                return bool(self.end.keep)
            self.end.ended = True
            uncertain = self.end.uncertain
            if uncertain and self.end.tried > BULK:
                # What the peer left unread breaks the connection.
                return bool(self.end.keep)
            show = "eof" if uncertain else f"eof after {self.end.received}"
            self.end.react("eof", show)
            return bool(self.end.keep)

        def connection_lost(self, exc: BaseException | None) -> None:
            end = self.end
            if end.lost:
                end.log("lost again")
                return
            end.lost = True
            # asyncio may still send what is written here.
            end.reactions["lost"] = [
                op
                for op in end.reactions.get("lost", [])
                if op[0] not in UNSAFE_IN_GET_BUFFER
            ]
            if isinstance(exc, ConnectionError):
                # Found by a write or by a read, in that write or later.
                end.machine.log("lost: broken", f"{end.name} broken")
                end.react("lost", "")
            else:
                end.react("lost", f"lost {named(exc)}")

    class Plain(Base, asyncio.Protocol):
        def data_received(self, data: bytes) -> None:
            if not isinstance(data, bytes) or not data:
                self.end.log(f"data {data!r}")
            self.end.take(data)
            if "data" in self.end.reactions:
                self.end.react("data")

    class Buffered(Base, asyncio.BufferedProtocol):
        buffer = bytearray(0)

        def get_buffer(self, hint: int) -> memoryview:
            if not self.buffer:
                self.buffer = bytearray(65_536)
            if "get_buffer" in self.end.reactions:
                self.end.react("get_buffer", "", UNSAFE_IN_GET_BUFFER)
            return memoryview(self.buffer)

        def buffer_updated(self, count: int) -> None:
            self.end.take(self.buffer[:count])
            if "data" in self.end.reactions:
                self.end.react("data")

    class Datagram(Side, asyncio.DatagramProtocol):
        transport: Any = None
        target: Any = None

        def __init__(self, machine: Machine, name: str, ops: Any) -> None:
            super().__init__(machine, name)
            self.ops = list(ops)

        def connection_made(self, transport: Any) -> None:
            self.transport = transport
            self.log("made")

        def datagram_received(self, data: bytes, address: Any) -> None:
            good = bytes(data) == piece(0, len(data))
            self.log(f"datagram {len(data)} {good} {address[0]}")
            if self.ops:
                self.act(self.ops.pop(0))

        def error_received(self, exc: OSError) -> None:
            self.log(f"error {named(exc)}")

        def connection_lost(self, exc: BaseException | None) -> None:
            self.log(f"lost {named(exc)}")

        def act(self, op: Any) -> None:
            if self.transport is not None:
                super().act(op)

        def do_send(self, size: int) -> None:
            self.transport.sendto(piece(0, size), self.target)

        def do_send_to(self, size: int) -> None:
            self.transport.sendto(piece(0, size), ("127.0.0.1", 9))

        def do_close(self) -> None:
            self.transport.close()
            self.log(f"close {self.transport.is_closing()}")

        def do_abort(self) -> None:
            self.transport.abort()

        def do_look(self) -> None:
            size = self.transport.get_write_buffer_size()
            self.log(f"waiting {size} {self.transport.is_closing()}")

    @staticmethod
    def make(end: End, kind: str) -> Any:
        names = {"plain": Protocols.Plain, "buffered": Protocols.Buffered}
        return names[kind](end)


async def talk(machine: Any, reader: Any, writer: Any, script: Any) -> None:
    """Write and read, side by side, what a script says; part in order."""
    written = received = 0

    def took(data: bytes, what: str) -> None:
        nonlocal received
        good = data == piece(received, len(data))
        received += len(data)
        machine.log(f"{what} {len(data)} {good}")

    async def write() -> None:
        nonlocal written
        for name, size in script:
            if name == "write":
                writer.write(piece(written, size))
                written += size
            elif name == "drain":
                await writer.drain()
            elif name == "turn":
                await asyncio.sleep(0)
        writer.write_eof()

    async def read() -> None:
        for name, size in script:
            if name == "exactly":
                try:
                    took(await reader.readexactly(size), "exactly")
                except asyncio.IncompleteReadError as exc:
                    took(exc.partial, "incomplete")
        rest = b""
        while data := await reader.read(65536):
            rest += data
        took(rest, "rest")

    await asyncio.gather(write(), read())
    writer.close()
    await writer.wait_closed()
    machine.log(f"wrote {written}, done")
