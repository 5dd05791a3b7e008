"""What programs do in tasks: streams, sockets, TLS, with cancellation."""

from __future__ import annotations

import asyncio
import contextlib
import fcntl
import os
import random
import select
import socket
import sys
import time
from collections.abc import Iterator
from typing import Any

from prog_ends import RAISED, Link, Provoked, kind_of
from prog_links import context, helper
from prog_peer import BLOCK, PATIENCE, Peer, TlsWire

#: Seconds after which a handshake that the peer does not do is given up.
REFUSAL = 0.3
READS = ("read", "exactly", "line", "until")
SEPARATORS = (b"\n", b"\r\n", b"\0", b"ab", b"")


class Subclass(asyncio.StreamReader):
    """A class of the program's."""


class StreamOps:
    """Part of a World, whose attributes it uses."""

    fed = 0
    firing: Link | None = None  # whose event runs

    # -- tasks --------------------------------------------------------------

    def op_task(self, statements: list[Any]) -> None:
        if not self.leaving:
            task = self.loop.create_task(self.script(statements))
            self.tasks.append(task)

    def op_cancel(self, number: int) -> None:
        if self.tasks:
            self.tasks[number % len(self.tasks)].cancel()

    async def script(self, statements: list[Any]) -> None:
        """Do one statement after the other, in a task."""
        for name, *args in statements:
            self.moment += 1
            method = getattr(self, f"co_{name}", None)
            if method is None:
                try:
                    self.do((name, *args))
                except Provoked as exc:
                    if not isinstance(exc, Exception):
                        raise
                    self.log(f"{name} provoked")
                continue
            link = self.link(args[0])
            strand = f"link {link.index}"
            reads = name in READS and link.reader is not None
            if reads:
                link.log_race()
                if link.busy:
                    link.mark("read during a sendfile")
                if link.readers and link.reader._waiter is None:
                    link.mark("a read beside one that was woken")
            link.readers += reads
            try:
                await method(link, *args[1:])
            except asyncio.CancelledError:
                self.log(f"{name} cancelled", strand)
                if self.leaving:
                    return
            except (asyncio.IncompleteReadError, Exception) as exc:
                if isinstance(exc, Provoked):
                    continue
                # What it had taken is lost.
                link.gap = link.gap or isinstance(exc, MemoryError)
                self.log(f"{name}: {answer_of(exc)}", strand)
            finally:
                link.readers -= reads

    async def co_turn(self, link: Link, count: int) -> None:
        for _ in range(count):
            await asyncio.sleep(0)

    # -- StreamReader, StreamWriter -----------------------------------------

    async def co_read(self, link: Link, most: int) -> None:
        if link.reader is None:
            return
        # It collects pieces, while other tasks may take some.
        link.gap = link.gap or (most < 0 and len(self.tasks) > 1)
        try:
            data = await link.reader.read(most)
        except BaseException:
            link.gap = link.gap or most < 0  # those it had belong to no reader
            raise
        self.took(link, data)
        if most > 0 and len(data) > most:
            link.problem(f"read({most}) returned {len(data)}")
        strand = f"link {link.index}"
        self.log("read" if data else f"read: end {link.received}", strand)

    async def co_exactly(self, link: Link, size: int) -> None:
        if link.reader is None:
            return
        try:
            data = await link.reader.readexactly(size)
        except asyncio.IncompleteReadError as exc:
            link.take(exc.partial)
            raise
        self.took(link, data)
        self.log(f"exactly {len(data)}", f"link {link.index}")

    def took(self, link: Link, data: bytes) -> None:
        """Note what one task has got, maybe while another seeks a line."""
        if link.seeking:
            self.log("taken from under a search", f"link {link.index}")
        link.take(data)

    async def co_line(self, link: Link) -> None:
        if link.reader is not None:
            link.seeking += 1
            try:
                data = await link.reader.readline()
            except ValueError:
                link.gap = True  # it drops what is too long
                raise
            finally:
                link.seeking -= 1
            self.took(link, data)
            self.log(f"line {len(data)}", f"link {link.index}")

    async def co_until(self, link: Link, which: int) -> None:
        if link.reader is None:
            return
        separator = SEPARATORS[which % len(SEPARATORS)]
        link.seeking += 1
        try:
            data = await link.reader.readuntil(separator)
        except asyncio.IncompleteReadError as exc:
            link.take(exc.partial)
            raise
        finally:
            link.seeking -= 1
        self.took(link, data)
        self.log(f"until {len(data)}", f"link {link.index}")

    async def co_drain(self, link: Link) -> None:
        if link.writer is not None:
            await link.writer.drain()

    def op_feed(self, number: int, size: int) -> None:
        """Put bytes into a reader that did not come by its transport."""
        link = self.link(number)
        if link.reader is not None and size and not link.upgrading:
            self.fed += 1
            mark = random.Random(self.fed).randbytes(8)
            piece = mark + bytes(max(0, size - 8))
            link.fed.append(piece)
            try:
                link.reader.feed_data(piece)
            except BaseException as exc:
                # Of a waiter that was settled, and of a descriptor that was
                # closed by hand, connection_lost comes afterwards.
                expected = (asyncio.InvalidStateError, OSError)
                if not isinstance(exc, expected):
                    link.fed.remove(piece)
                raise

    def op_feed_eof(self, number: int) -> None:
        link = self.link(number)
        if link.reader is not None:
            link.rough = True
            link.reader.feed_eof()

    def op_fail(self, number: int) -> None:
        link = self.link(number)
        if link.reader is not None:
            link.rough = True
            if link.readers and link.reader._waiter is None:
                link.mark("a read begins anew")
            link.reader.set_exception(RAISED["boom"]("failed"))

    def op_reader(self, number: int, what: str) -> None:
        """Look at a reader, or make it another class's."""
        link = self.link(number)
        reader = link.reader
        if reader is None:
            return
        if what == "class":
            if link.readers:
                link.mark("a read begins anew")
            reader.__class__ = Subclass
        elif what == "dict":
            vars(reader).get("anything")
        elif what == "buffer":
            self.log(f"buffer {len(reader._buffer) > 0}")
        elif what == "keep":
            self.keep.append(reader._buffer)
        elif what == "repr":
            repr(reader)
        elif what == "paused":
            # Of more, how much has come by then is the loop's to say.
            if not link.secure and link.peer.wanted <= 1 << 16:
                self.log(f"paused {reader._paused}", f"link {link.index}")
        else:
            link.log_race()
            self.log(f"at_eof {reader.at_eof()}", f"link {link.index}")

    def op_settle_waiter(self, number: int) -> None:
        """Wake the task that waits for a reader, as a timeout's code may."""
        link = self.link(number)
        waiter = getattr(link.reader, "_waiter", None)
        if waiter is not None and not waiter.done():
            waiter.set_result(None)

    # -- TLS ----------------------------------------------------------------

    async def co_start_tls(
        self, link: Link, version: str, server: bool, early: int, own: bool
    ) -> None:
        """Make a connection one of TLS, if nothing is under way."""
        if not self.may_upgrade(link):
            return
        wire = TlsWire(
            link.peer.wire, context(not server, version), not server
        )
        link.upgrading = link.shaking = link.secure = True
        link.peer.wire = wire
        done = helper(link.index).submit(lambda: link.peer.do_shake(early))
        ours = context(server, version, own)
        name = None if server else "localhost"
        try:
            if link.writer is not None:
                await link.writer.start_tls(ours, server_hostname=name)
                new = link.writer.transport
            else:
                protocol = link.transport.get_protocol()
                new = await self.loop.start_tls(
                    link.transport,
                    protocol,
                    ours,
                    server_side=server,
                    server_hostname=name,
                )
                protocol.transport = new
            # Before anything else runs: it would write to the old one.
            link.transport = new or link.transport
            link.upgrading = False
        except BaseException:
            # Before the wait below: a pipe refuses TLS, and stays in use.
            link.upgrading = False
            link.rough = link.untold = link.peer.stop = True
            if self.depth(wire) > 1:
                link.mark("TLS in TLS did not begin")
            raise
        finally:
            await wait_for_thread(done)
            link.upgrading = link.shaking = False
        if new is None:
            link.rough = True
        else:
            self.log("encrypted", f"link {link.index}")

    async def co_refused_tls(
        self, link: Link, server: bool, does: str, turns: int
    ) -> None:
        """Request TLS of a peer that ends, or speaks another protocol."""
        if not self.may_upgrade(link):
            return
        link.rough = link.untold = link.unchecked = link.peer.outside = True
        if does == "noise":
            link.peer.noise = b"no TLS at all"
            link.peer.wire.send(link.peer.noise)
        elif does != "silence":
            link.peer.do((does,))
        await self.co_turn(link, turns)
        if link.transport.is_closing():
            return
        ours = context(server, "1.3")
        name = None if server else "localhost"
        begin = time.monotonic()
        outcome = "begun"
        try:
            if link.writer is not None and sys.version_info >= (3, 12):
                await link.writer.start_tls(
                    ours, server_hostname=name, ssl_handshake_timeout=REFUSAL
                )
            else:
                await self.loop.start_tls(
                    link.transport,
                    link.transport.get_protocol(),
                    ours,
                    server_side=server,
                    server_hostname=name,
                    ssl_handshake_timeout=REFUSAL,
                )
        except BaseException as exc:
            if self.depth(link.peer.wire) > 0:
                link.mark("TLS in TLS did not begin")
            if not isinstance(exc, Exception):
                raise
            outcome = kind_of(exc)
        late = " in time" if time.monotonic() < begin + REFUSAL else " late"
        self.log(f"TLS {outcome}{late}", f"link {link.index} refused")
        link.transport.abort()

    def may_upgrade(self, link: Link) -> bool:
        """Whether both sides have read all that was written."""
        if (
            link.transport is None
            or link.shaking
            or link.read_pipe
            or link.busy
        ):
            return False
        if not all(tape.is_set() for tape in self.tapes):
            return False
        peer: Peer = link.peer
        if peer.wire is None or peer.gone or peer.broken or peer.ended:
            return False
        if self.depth(peer.wire) > 1 or link.rough or link.closed or link.fed:
            return False
        if link.lost or link.eof or link.transport.is_closing():
            return False
        peer.do(("send", 0))
        peer.do(("recv", 1 << 22))
        if link.reader is None and link.received < peer.sent:
            link.mark("upgrade before all is read")
        return (
            peer.received == link.written
            and link.received == peer.sent == peer.wanted
        )

    @staticmethod
    def depth(wire: Any) -> int:
        depth = 0
        while isinstance(wire, TlsWire):
            depth, wire = depth + 1, wire.below
        return depth

    # -- files --------------------------------------------------------------

    async def co_sendfile(self, link: Link, count: int) -> None:
        """Send a part of a file that has what comes next."""
        transport = link.transport
        if link.sock is None and (
            transport is None
            or link.upgrading
            or transport.is_closing()
            or link.read_pipe
        ):
            return
        if link.busy and not self.files:
            link.mark("a file beside sendall")
        count = len(link.next_piece(count))
        if not count or link.closed or link.rough or link.busy:
            return
        if link.secure:
            link.mark_limits()
        if link.readers:
            link.mark("read during a sendfile")
        link.busy = True
        peer = link.peer
        at = peer.to_b + link.written
        link.written += count
        calls = link.kind in ("plain", "buffered")
        seen = (link.received, link.eof) if calls else None
        number = move_up(os.open(BLOCK_FILE, os.O_RDONLY), 500)
        with open(number, "rb") as file:
            self.files.append(file.fileno())
            try:
                if link.sock is not None:
                    await self.loop.sock_sendfile(link.sock, file, at, count)
                else:
                    await self.loop.sendfile(transport, file, at, count)
                    await self.until_room(link)
            except BaseException as exc:
                # What is written from now on is behind a hole.
                if self.leaving:
                    link.mark("sendfile until the peer reads")
                cancelled = isinstance(exc, asyncio.CancelledError)
                ended = peer.gone or peer.broken == "ended"
                if cancelled and seen not in (None, (peer.wanted, ended)):
                    link.mark("read during a sendfile")
                broken = peer.gone and isinstance(exc, ConnectionError)
                if link.secure or link.ended or broken:
                    link.mark("sendfile interrupted")
                link.rough = peer.outside = True
                raise
            finally:
                self.files.remove(file.fileno())
                link.busy = False
                link.switched = True  # another protocol was there meanwhile
        if not link.closed:
            link.required = link.written
        # After how many iterations is the loop's to say, and so how many are
        # sent: a file is not sent while another is.
        if not link.sent_file:
            self.log("sent a file", f"link {link.index} file")
        link.sent_file = True

    async def until_room(self, link: Link) -> None:
        """Wait as asyncio's sendfile does, which ends when there is room.

        For longer than a step of the program, as asyncio's takes more
        iterations.
        """
        poll = select.poll()
        poll.register(link.number, select.POLLOUT)
        ready = False
        while not (link.secure or link.closed or ready):
            await asyncio.sleep(0.003)
            ready = bool(poll.poll(0))

    # -- sock_* -------------------------------------------------------------

    async def co_sendall(self, link: Link, size: int) -> None:
        if link.sock is None or link.rough or link.closed or link.busy:
            return
        piece = link.next_piece(size)
        link.busy = True
        link.written += len(piece)
        moment = self.moment
        try:
            await self.loop.sock_sendall(link.sock, piece)
        except BaseException:
            link.rough = True
            raise
        finally:
            link.busy = False
        if piece and self.moment == moment:
            link.wrote(link.written)
            self.look_for_overtaking()
        elif not link.closed:
            # It waited: what others wrote meanwhile is not before it.
            link.required = link.written

    async def co_recv(self, link: Link, size: int, into: bool) -> None:
        if link.sock is None or link.reading:
            return
        link.reading = True
        self.loop.remove_reader(link.sock)
        try:
            if into:
                room = bytearray(max(1, size))
                count = await self.loop.sock_recv_into(link.sock, room)
                data = bytes(room[:count])
            else:
                data = await self.loop.sock_recv(link.sock, max(1, size))
            link.take(data)
        except asyncio.CancelledError:
            link.gap = True  # it may have been received by then, and is lost
            raise
        finally:
            link.reading = False
        self.log("recv" if data else "recv: end", f"link {link.index}")

    def note_order(self, link: Link) -> None:
        """Say that the order of two descriptors' events matters."""
        if self.firing not in (None, link):
            link.mark("an event changes another descriptor's")

    @contextlib.contextmanager
    def event_of(self, link: Link) -> Iterator[None]:
        self.firing = link
        try:
            yield
        finally:
            self.firing = None

    def op_add_reader(self, number: int) -> None:
        link = self.link(number)
        self.note_order(link)
        if link.sock is not None and not link.reading:
            self.loop.add_reader(link.sock, self.on_readable, link)

    def on_readable(self, link: Link) -> None:
        if link.over:
            link.problem("a reader was called after the loop was closed")
        if link.sock is None:
            link.stale_calls += 1
            return
        try:
            data = link.sock.recv(4096)
        except BlockingIOError:
            return
        except OSError:
            data = b""
        link.take(data)
        if not data:
            self.loop.remove_reader(link.sock)
        with self.event_of(link):
            link.happens("data")

    def op_remove_reader(self, number: int) -> None:
        link = self.link(number)
        self.note_order(link)
        if link.sock is not None and not link.reading:
            self.loop.remove_reader(link.sock)

    def op_add_writer(self, number: int, ops: list[Any]) -> None:
        link = self.link(number)
        self.note_order(link)
        if link.sock is None:
            return
        sock = link.sock

        def writable() -> None:
            if link.sock is None:
                link.stale_calls += 1
                return
            self.loop.remove_writer(sock)
            with self.event_of(link):
                self.run_ops(ops)

        self.loop.add_writer(sock, writable)

    async def finish_socket(self, link: Link) -> None:
        """Read a plain socket to its end, then close it."""
        if link.sock is None:
            return
        self.loop.remove_reader(link.sock)
        self.loop.remove_writer(link.sock)
        try:
            async with asyncio.timeout(PATIENCE):
                while link.received < link.peer.wanted and not link.rough:
                    data = await self.loop.sock_recv(link.sock, 65536)
                    if not data:
                        break
                    link.take(data)
        except TimeoutError:
            peer = link.peer
            if not (self.loose or link.gap or peer.gone or peer.broken):
                link.problem(f"sock_recv waits after {link.received}")
        except OSError:
            link.rough = True
        link.closed = True
        with contextlib.suppress(OSError):
            link.sock.shutdown(socket.SHUT_WR)
        link.sock.close()


def answer_of(exc: BaseException) -> str:
    """Return what an exception says, as a trace has it."""
    text = kind_of(exc)
    if isinstance(exc, asyncio.LimitOverrunError):
        text += f" {exc.consumed}"
    if isinstance(exc, ValueError) and exc.__context__ is not None:
        text += f" in {type(exc.__context__).__name__}"
    return text


async def wait_for_thread(done: Any) -> None:
    """Wait for a job of a helper, whichever side cancels."""
    while not done.is_set():
        with contextlib.suppress(asyncio.CancelledError):
            await asyncio.sleep(0.0005)


def block_file() -> str:
    """Return the name of a file with the whole of BLOCK.

    It is in no folder, so it goes with the last process that has it, however
    that ends.
    """
    number = os.memfd_create("block")
    with open(number, "wb", closefd=False) as file:
        file.write(BLOCK)
    return f"/proc/self/fd/{move_up(number, 901)}"


def move_up(number: int, least: int) -> int:
    """Move an fd above the numbers that programs close by hand.

    A double close there would close this file.  Its object would later close
    another file's number, perhaps one of a later program's loop.
    """
    high = fcntl.fcntl(number, fcntl.F_DUPFD_CLOEXEC, least)
    os.close(number)
    return high


#: Made once: forked workers share it.
BLOCK_FILE = block_file()
