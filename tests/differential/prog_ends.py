"""End A of a connection: protocols and readers on the loop under test."""

from __future__ import annotations

import asyncio
import contextlib
import os
import socket
import sys
from collections.abc import Callable
from typing import Any

from prog_peer import BLOCK, MOST, Peer, where

#: How often a protocol has a small buffer: a million times shows no more.
SMALL_READS = 1000


class Provoked(BaseException):
    """What programs raise themselves: no answer of a loop's."""


class Boom(Provoked, ValueError):
    pass


class Exit(Provoked, SystemExit):
    pass


class Interrupt(Provoked, KeyboardInterrupt):
    pass


class Odd(Provoked, BaseException):
    pass


RAISED: dict[str, type[BaseException]] = {
    "boom": Boom,
    "exit": Exit,
    "interrupt": Interrupt,
    "odd": Odd,
    "cancelled": type("Off", (Provoked, asyncio.CancelledError), {}),
    "os": type("Broken", (Provoked, ConnectionError), {}),
}


class Link:
    """One connection: what its ends did, whatever became of its objects."""

    def __init__(
        self, world: Any, index: int, net: str, side: str, kind: str, conf: Any
    ) -> None:
        self.world, self.index = world, index
        self.net, self.side, self.kind = net, side, kind
        self.conf = dict(conf)
        self.react: dict[str, list[Any]] = {
            event: list(ops) for event, ops in self.conf.get("react", [])
        }
        self.peer = Peer(index)
        self.read_pipe: Any = None
        self.transport: Any = None
        self.reader: Any = None
        self.writer: Any = None
        self.sock: socket.socket | None = None
        self.written = 0  # by A, or tried
        self.required = 0  # of it, what an orderly end delivers
        self.received = 0  # by A
        self.fed: list[bytes] = []  # what the application puts in itself
        self.made = self.lost = 0
        self.read_among_writes = False  # by end B
        self.eof = False
        self.flow = False  # whether writing is paused
        self.ended = False  # A has called write_eof()
        self.closed = False  # A has closed in order
        self.rough = False  # A has done what excuses it from all that
        self.own_end = False  # A has closed before its peer did
        self.closes = 0  # how often
        self.settled = False  # they had come long before
        self.late = False  # A wrote after its end; asyncio may send that
        self.many_reads = False  # asyncio may have read less before A's end
        self.unread = False  # A may have closed with bytes unread
        self.wanted = MOST  # of B by the time that A closed
        self.upgrading = False  # start_tls() has not returned
        self.shaking = False  # nor has end B's half of it
        self.untold = False  # of its end: the upgrade did not succeed
        self.number = -1  # of A's descriptor, where it is known
        self.reading = False  # a coroutine has the socket
        self.gap = False  # a protocol that was replaced may have bytes
        self.unchecked = False  # what A received is not looked at any more
        self.moment = 0  # the callback that A wrote in last
        self.iteration = 0  # and when that was
        self.readers = 0  # tasks that read
        self.seeking = 0  # tasks that look for the end of a line
        self.switched = False  # set_protocol() was called; no flow since
        self.limited = False  # A may hold no bytes without being paused
        self.switches = 0  # how often it was
        self.busy = False  # a coroutine is writing
        self.sent_file = False  # as the trace says already
        self.secure = "tls" in self.conf
        self.changed: asyncio.Event | None = None
        self.over = False  # its loop is closed
        self.closed_by_hand = False  # A's fd was
        self.reused = False  # another file has its number
        self.stale_calls = 0  # of callbacks of a closed fd
        self.odd: list[str] = []  # events with something around them

    def log(self, text: str, which: str = "") -> None:
        self.world.log(text, f"link {self.index}{which}")

    def has_ended(self) -> bool:
        """Whether A knows that no more comes."""
        return self.eof or self.lost > 0 or self.rough

    def log_race(self) -> None:
        """Say that the kernel decides when a read sees A's own end."""
        # asyncio's TLS transport may have let go of what it asks.
        with contextlib.suppress(AttributeError):
            if self.own_end and self.transport.get_write_buffer_size():
                self.mark("read until the last byte is sent")

    def mark(self, text: str) -> None:
        """Note what may excuse the traces from being alike."""
        self.world.log(text, "marks")

    def mark_limits(self) -> None:
        """Note that asyncio may pause a protocol over TLS for no reason."""
        if self.limited:
            self.mark("limits of 0 over TLS")

    def problem(self, text: str) -> None:
        self.world.problem(f"link {self.index}: {text}")

    def next_piece(self, size: int) -> bytes:
        size = min(size, MOST - self.written)
        start = self.peer.to_b + self.written
        return BLOCK[start : start + size]

    def wrote(self, end: int) -> None:
        """Note that the bytes up to a place were taken, in order."""
        if not self.closed:
            self.required = max(self.required, end)
        self.world.writes.append((self, end))

    def take(self, data: Any) -> None:
        """Check what A received, against what B and A itself put in."""
        data = b"" if self.unchecked else bytes(data)
        if self.over:
            self.problem("data after the loop was closed")
        if self.upgrading and data:
            self.problem("data before start_tls() returned")
        while data:
            start = self.peer.to_a + self.received
            whole = BLOCK[start : start + len(data)]
            if data == whole:
                self.received += len(data)
                break
            at, piece = self.find_fed(data, whole)
            if at < 0 and self.gap:
                self.jump(data, start)
                break
            if at < 0 and self.world.loose:
                self.unchecked = True  # bytes of another file that has the fd
                break
            if at < 0:
                self.problem(
                    f"A got wrong bytes after {self.received}: "
                    + where(data, self.peer.to_a)
                )
                self.received += len(data)
                break
            size = min(len(piece), len(data) - at)
            self.received += at
            if self.peer.wanted <= 1 << 16:
                # Of more, how much has come by then is the loop's to say.
                self.log(f"fed bytes after {self.received}")
            self.fed.remove(piece)
            if size < len(piece):
                self.fed.insert(0, piece[size:])
            data = data[at + size :]
        if self.received > self.peer.wanted:
            self.problem(
                f"A got {self.received} bytes, B sent {self.peer.wanted}"
            )
        self.touch()

    def jump(self, data: bytes, start: int) -> None:
        """Go on behind what another protocol, or none, has been given."""
        self.rough = True
        found = BLOCK.find(data, start, start + MOST)
        if found >= 0 and len(data) >= 8:
            self.received = found - self.peer.to_a + len(data)
            self.log("bytes jump")  # how far is the size of a read
        else:
            self.unchecked = True  # two readers' bytes are mixed

    def find_fed(self, data: bytes, whole: bytes) -> tuple[int, bytes]:
        """Return where what A put in itself begins, and which piece it is."""
        same = len(os.path.commonprefix([data, whole]))
        for at in range(same, max(-1, same - 3), -1):
            for piece in self.fed:
                if data[at : at + len(piece)] == piece[: len(data) - at]:
                    return at, piece
        return -1, b""

    def touch(self) -> None:
        self.world.activity += 1
        if self.changed is not None:
            self.changed.set()

    def happens(self, event: str) -> None:
        """Do what the program does at an event, the first time."""
        self.touch()
        # Flow control depends on how much the kernel takes.
        text = event if event in ("full", "empty") else event + around()
        if text != event and text not in self.odd:
            self.odd.append(text)  # how often is the loop's to say
            self.log(text)
        if self.over and not self.rough:
            self.problem(f"{event} after the loop was closed")
        ops = self.react.pop(event, None)
        if ops:
            self.world.run_ops(ops)

    # -- what every kind of protocol tells ----------------------------------

    def on_made(self, transport: Any) -> None:
        self.made += 1
        if self.made > 1:
            self.problem("connection_made was called twice")
        self.transport = transport
        self.world.watch(transport)
        self.log("made")
        self.happens("made")
        if self.net in ("pipe", "pty") and transport.is_closing():
            self.mark("a pipe closed as it is made")

    def on_lost(self, exc: BaseException | None) -> None:
        self.lost += 1
        # Where the pipe's own close() fails, asyncio keeps the protocol.
        keeps = self.world.loose and self.net in ("pipe", "pty")
        if self.lost > 1 and not keeps:
            self.problem("connection_lost was called twice")
        self.log(f"lost {kind_of(exc)}")
        if exc is not None:
            self.rough = True
        self.happens("lost")

    def on_eof(self) -> None:
        # A pipe's end comes by a descriptor of its own.
        which = "" if self.read_pipe is None else " in"
        self.log("eof again" if self.eof else "eof", which)
        self.eof = True
        self.happens("eof")

    def on_flow(self, paused: bool) -> None:
        word = "pause_writing" if paused else "resume_writing"
        if self.switched:
            self.switched = False  # the old one may have been paused
        elif self.flow == paused:
            self.problem(f"{word} was called twice")
        self.flow = paused
        self.happens("full" if paused else "empty")


def around(expected: BaseException | None = None) -> str:
    """Say what few calls have around them.

    That is an exception that the caller handles, other than the expected one,
    and a task that runs.
    """
    exc = sys.exception()
    text = ""
    if exc is not expected:
        text += f" handling {'nothing' if exc is None else kind_of(exc)}"
    if asyncio.current_task() is not None:
        text += " in a task"
    return text


def kind_of(exc: BaseException | None) -> str:
    """Return the kind of an exception, as a trace has it."""
    if exc is None:
        return "in order"
    if isinstance(exc, ConnectionError):
        return "ConnectionError"  # which one is a race
    return type(exc).__name__


class Base(asyncio.BaseProtocol):
    """What the protocols of both kinds share."""

    def __init__(self, link: Link) -> None:
        self.link = link
        self.transport: Any = None
        self.last: list[Any] = []  # what goes with this protocol
        link.world.watch(self)

    def connection_made(self, transport: Any) -> None:
        self.transport = transport
        self.link.on_made(transport)

    def connection_lost(self, exc: BaseException | None) -> None:
        self.link.on_lost(exc)

    def pause_writing(self) -> None:
        self.link.on_flow(True)

    def resume_writing(self) -> None:
        self.link.on_flow(False)

    def eof_received(self) -> bool:
        self.link.on_eof()
        return bool(self.link.conf.get("keep")) and not self.link.secure


class Plain(Base, asyncio.Protocol):
    def data_received(self, data: bytes) -> None:
        self.link.take(data)
        self.link.happens("data")


class Buffered(Base, asyncio.BufferedProtocol):
    def __init__(self, link: Link) -> None:
        super().__init__(link)
        self.buffer = bytearray(link.conf.get("room", 65536))
        self.left = SMALL_READS

    def get_buffer(self, hint: int) -> Any:
        self.link.happens("get_buffer")
        transport = self.link.transport
        if self.link.secure and transport and transport.is_closing():
            self.link.mark("closed inside of get_buffer over TLS")
        self.left -= 1
        if self.left == 0:
            self.buffer = bytearray(65536)
        return memoryview(self.buffer)

    def buffer_updated(self, count: int) -> None:
        self.link.take(self.buffer[:count])
        self.link.happens("data")


class Streams(asyncio.StreamReaderProtocol):
    """The standard library's, which also tells what happens."""

    link: Link

    def connection_made(self, transport: Any) -> None:
        super().connection_made(transport)
        self.link.on_made(transport)

    def connection_lost(self, exc: BaseException | None) -> None:
        super().connection_lost(exc)
        self.link.on_lost(exc)

    def eof_received(self) -> Any:
        self.link.on_eof()
        return super().eof_received()


class Last:
    """An object whose finalizer writes to a transport that dies with it."""

    def __init__(self, link: Link, transport: Any, ops: Any) -> None:
        self.link, self.transport, self.ops = link, transport, ops

    def __del__(self) -> None:
        link, ops = self.link, self.ops
        link.rough = True
        for name, *args in ops:
            try:
                if name == "write":
                    piece = link.next_piece(args[0])
                    link.written += len(piece)
                    self.transport.write(piece)
                elif name == "lines":
                    pieces = []
                    for size in args[0]:
                        pieces.append(link.next_piece(size))
                        link.written += len(pieces[-1])
                    self.transport.writelines(pieces)
                else:
                    getattr(self.transport, name)()
            except Exception:
                link.touch()  # what is left of it by then differs


def make_protocol(link: Link, kind: str) -> Any:
    """Return a protocol of a kind; readers and writers are the link's."""
    if kind == "plain":
        return Plain(link)
    if kind == "buffered":
        return Buffered(link)
    loop = link.world.loop
    reader = asyncio.StreamReader(link.conf.get("limit", 1 << 16), loop=loop)

    def connected(
        reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> None:
        link.reader, link.writer = reader, writer
        if not own:
            link.on_made(writer.transport)

    own = link.conf.get("watched", False)
    made: Callable[..., Any] = Streams if own else asyncio.StreamReaderProtocol
    protocol = made(reader, connected, loop=loop)
    if own:
        protocol.link = link
    link.world.watch(reader)
    return protocol
