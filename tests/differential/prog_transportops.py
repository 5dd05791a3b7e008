"""What programs do with transports, and with the descriptors under them."""

from __future__ import annotations

import contextlib
import fcntl
import gc
import os
import socket
import struct
import termios
import time
from collections.abc import Iterator
from typing import Any

from prog_ends import RAISED, Last, Link, Provoked, make_protocol
from prog_peer import TlsWire

#: No more than that is left unread where the order of writes is checked.
FEW = 1500
KINDS_OF_BYTES = (bytes, bytearray, memoryview)


class TransportOps:
    """Part of a World, whose attributes it uses."""

    def usable(self, number: int) -> Link | None:
        """Return a link whose transport can be used now."""
        link: Link = self.link(number)
        if link.transport is None or link.upgrading or link.reused:
            return None  # the program itself would use the next file
        return link

    # -- writing ------------------------------------------------------------

    def op_write(self, number: int, *sizes: int) -> None:
        """Write so many pieces, of these sizes."""
        link = self.usable(number)
        if link is None or link.busy:
            return  # how long a sendfile() takes is the loop's to say
        for size in sizes:
            piece = link.next_piece(size)
            kind = KINDS_OF_BYTES[size % 3]
            sink = link.writer if size % 2 and link.writer else link.transport
            self.hand(link, sink.write, kind(piece), len(piece))

    def op_lines(self, number: int, *sizes: int) -> None:
        link = self.usable(number)
        if link is None or link.busy:
            return
        pieces, written = [], link.written
        for size in sizes:
            pieces.append(link.next_piece(size))
            link.written += len(pieces[-1])
        total, link.written = link.written - written, written
        self.hand(link, link.transport.writelines, pieces, total)

    def hand(self, link: Link, write: Any, data: Any, size: int) -> None:
        """Give a transport bytes, which count while it looks at them."""
        closing = link.transport.is_closing()
        if link.peer.gone and self.may_be_corked(link):
            link.log("cut off among writes")
        link.moment, link.iteration = self.moment, self.iteration
        link.late = link.late or bool(size and link.lost)
        link.written += size
        end = link.written
        try:
            write(data)
        except BaseException as exc:
            if closing:
                pass  # where the other loop says nothing, it drops them
            elif link.written == end and not isinstance(exc, Provoked):
                link.written -= size
            else:
                # What was written inside is behind a hole, or before it.
                link.rough = link.peer.outside = True
            raise
        if size and not closing:
            link.wrote(end)

    def may_be_corked(self, link: Link) -> bool:
        """Whether fastloop may not have sent A's last bytes yet."""
        same = link.moment == self.moment
        return same or self.iteration - link.iteration <= 1

    @contextlib.contextmanager
    def watching_files(self) -> Iterator[None]:
        """Look when os.sendfile() returns: its caller may wait after it."""
        send = os.sendfile

        def sendfile(fd: int, file: int, offset: int, count: int) -> int:
            sent = send(fd, file, offset, count)
            for link in self.links:
                if fd == link.number:
                    end = offset + sent - link.peer.to_b
                    self.writes.append((link, end))
            self.look_for_overtaking()
            return sent

        os.sendfile = sendfile
        try:
            yield
        finally:
            os.sendfile = send

    def look_for_overtaking(self) -> None:
        """See that no later byte arrived while an earlier one has not.

        Of the last writes of a callback: what a transport says it has sent is
        visible, or nothing that was written later is.
        """
        # asyncio's own transports overtake corked writes.
        recent = [
            (link, end)
            for link, end in self.writes[-8:]
            if link.kind == "sock" or link.conf.get("own") != "calls"
        ]
        links = {link.index for link, _ in recent}
        if self.loose or len(links) < 2:
            return
        missing: Link | None = None  # has bytes that B cannot see
        for link, end in recent:
            here = visible(link)
            if here is None:
                continue
            if missing not in (None, link) and here >= end:
                self.problem(
                    f"bytes of link {link.index} overtook those that link "
                    f"{missing.index} had written before"
                )
                return
            if here < end and end - here < FEW and not waits(link):
                missing = link

    def op_eof(self, number: int) -> None:
        link = self.usable(number)
        if link is not None:
            link.ended = True
            link.transport.write_eof()
            link.closed = link.closed or link.secure

    def op_close(self, number: int) -> None:
        link = self.usable(number)
        if link is None:
            return
        if link.received < link.peer.wanted:
            link.unread = True
            # asyncio has taken that, with one call: it had all come.
            peer = link.peer
            link.settled = peer.sent == peer.wanted <= 200_000
        link.many_reads = link.peer.wanted > 200_000
        link.closed = link.own_end = True
        link.closes += 1
        link.wanted = min(link.wanted, link.peer.wanted)
        if link.secure:  # it writes close_notify
            link.moment, link.iteration = self.moment, self.iteration
        (link.writer or link.transport).close()
        if link.readers:
            link.log_race()
        if link.read_pipe is not None:
            link.read_pipe.close()

    def op_abort(self, number: int) -> None:
        link = self.usable(number)
        if link is not None:
            link.rough = True
            if link.secure and link.closes > 1:
                link.mark("abort of TLS that was closed twice")
            link.transport.abort()

    # -- reading, flow ------------------------------------------------------

    def op_pause(self, number: int) -> None:
        link = self.usable(number)
        if link is not None and not self.leaving:
            (link.read_pipe or link.transport).pause_reading()

    def op_resume(self, number: int) -> None:
        link = self.usable(number)
        if link is not None:
            (link.read_pipe or link.transport).resume_reading()

    def op_limits(self, number: int, high: int | None, low: Any) -> None:
        link = self.usable(number)
        if link is not None and not is_leaving_tls(link):
            link.limited = high == 0 or (high is None and low == 0)
            if link.secure and (link.writer or link.react):
                link.mark_limits()
            link.transport.set_write_buffer_limits(high, low)

    def op_set_protocol(self, number: int, kind: str) -> None:
        link = self.usable(number)
        if link is None or link.read_pipe is not None or is_leaving_tls(link):
            return
        if link.busy:
            return  # sendfile() ends by giving back the protocol before it
        if link.reader is not None:
            link.gap = True
            link.eof = link.eof or link.reader._eof  # the old one was paused
        if link.transport.is_closing():
            # The old one may be resumed already.
            link.untold = link.rough = True
            if link.transport.get_write_buffer_size():
                link.mark("another protocol until the last byte is sent")
        protocol = make_protocol(link, kind)
        link.transport.set_protocol(protocol)
        if kind == "streams":
            link.made = 0
            protocol.connection_made(link.transport)
            link.made = 1
        else:
            link.reader = link.writer = None
            protocol.transport = link.transport
        # No protocol will be resumed for a pause of the old one.
        link.switched = True
        link.switches += 1
        link.kind = kind
        if link.flow:
            if link.secure:
                link.mark_limits()
            link.flow = False
            link.rough = True

    def op_info(self, number: int) -> None:
        link = self.usable(number)
        if link is None:
            return
        sock = link.transport.get_extra_info("socket")
        if sock is not None:
            if sock.fileno() >= 0 and hasattr(sock, "getsockopt"):
                sock.getsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF)

    # -- objects ------------------------------------------------------------

    def op_gc(self) -> None:
        gc.collect()

    def op_finalizer(self, number: int, ops: list[Any]) -> None:
        """Leave an object that does something when all this is garbage."""
        link = self.usable(number)
        if link is None:
            return
        last = Last(link, link.transport, ops)
        protocol = link.transport.get_protocol()
        if hasattr(protocol, "last"):
            protocol.last.append(last)
            last.protocol = protocol
        else:
            protocol.last = [last, protocol]

    def op_drop(self, number: int) -> None:
        """Let go of a connection's every object."""
        link = self.usable(number)
        if link is not None:
            link.rough = self.wild = True
            link.transport = link.reader = link.writer = None
            link.read_pipe = None

    def op_raise(self, kind: str) -> None:
        for link in self.links:
            link.rough = True
        raise RAISED[kind](kind)

    # -- descriptors --------------------------------------------------------

    def descriptor(self, number: int) -> int:
        link = self.usable(number)
        if link is None or link.transport.is_closing():
            return -1  # its fd may be another's by now
        if link.conf.get("own") == "calls":
            return -1  # of asyncio's transport, which waits in recv() then
        if link.number >= 0:
            return link.number
        for what in ("socket", "pipe"):
            sock = link.transport.get_extra_info(what)
            if sock is not None:
                return int(sock.fileno())
        return -1

    def op_os_close(self, number: int, then: str) -> None:
        """Close a connection's descriptor as a double close would."""
        fd = self.descriptor(number)
        if fd < 0 or self.other_loops:
            return
        self.loose = True
        os.close(fd)
        self.link(number).number = -1
        self.link(number).closed_by_hand = True
        if then == "file":
            other = os.open("/dev/null", os.O_RDWR)
            if other != fd:
                os.dup2(other, fd)
                os.close(other)
            self.fds.append(fd)
        elif then == "socket":
            one, two = socket.socketpair()
            one.setblocking(False)
            # Not with an fd that another link had: its bytes would come here.
            self.fds.append(fcntl.fcntl(two, fcntl.F_DUPFD_CLOEXEC, 500))
            two.close()
            if one.fileno() != fd:
                os.dup2(one.fileno(), fd)
                one.close()
                self.fds.append(fd)
            else:
                self.keep.append(one)

    def op_dup(self, number: int) -> None:
        fd = self.descriptor(number)
        if fd >= 0:
            self.loose = True
            self.fds.append(os.dup(fd))

    def op_fork(self, number: int, *sizes: int) -> None:
        """Have a forked child write, and end by os._exit()."""
        link = self.usable(number)
        if link is None or link.secure or link.closed or link.lost:
            return
        if link.ended or link.busy:
            return  # the child could not write
        if link.peer.gone:
            return  # a child that finds it out takes the parent's events
        transport = link.transport
        if transport.is_closing() or transport.get_write_buffer_size():
            return
        link.peer.do_recv(1 << 20)
        pieces = []
        for size in sizes:
            pieces.append(link.next_piece(size))
            link.written += len(pieces[-1])
        pid = os.fork()
        if pid == 0:
            code = 1
            try:
                for piece in pieces:
                    transport.write(piece)
                code = 0
            finally:
                os._exit(code)
        begin = time.monotonic()
        _, status = os.waitpid(pid, 0)
        self.slept += time.monotonic() - begin
        if os.waitstatus_to_exitcode(status) != 0:
            self.problem(f"link {link.index}: a forked child failed")
        link.required = link.written

    # -- end B --------------------------------------------------------------

    def op_b(self, number: int, name: str, *args: Any) -> None:
        """Have end B do something, here and now."""
        link: Link = self.link(number)
        if link.shaking:
            return
        corked = self.may_be_corked(link)
        # What it has not received then, its end answers by a reset.
        link.read_among_writes |= name == "recv" and corked
        if name in ("rst", "close") and (corked or link.read_among_writes):
            link.log("cut off among writes")
        link.peer.do((name, *args))

    def op_noise(self, number: int, size: int) -> None:
        """Have end B send what is no TLS under it."""
        link: Link = self.link(number)
        wire = link.peer.wire
        # Where start_tls() failed, A has no TLS and would take it for data.
        failed = link.peer.stop
        if isinstance(wire, TlsWire) and not (link.shaking or failed):
            link.rough = True
            if link.received < link.peer.wanted:
                link.mark("noise behind bytes")
            link.peer.noise = b"\x17\x03\x03" + b"n" * size
            with contextlib.suppress(OSError):
                wire.below.send(link.peer.noise)

    def op_hook(self, number: int, ops: list[Any]) -> None:
        """Do something inside the next read or write of an SSLObject."""
        link: Link = self.link(number)
        tls = link.transport and link.transport.get_extra_info("ssl_object")
        if tls is not None and hasattr(tls, "todo"):
            todo = tls.__dict__.setdefault("todo", [])
            todo.append(lambda: self.leaving or self.run_hook(link, ops))

    def run_hook(self, link: Link, ops: list[Any]) -> None:
        switches = link.switches
        try:
            self.run_ops(ops)
        except Provoked as exc:
            if not isinstance(exc, Exception):
                link.mark("an exit inside of an SSLObject")
            raise
        if link.readers and any(op[0] == "task" for op in ops):
            link.mark("a second reader inside of an SSLObject")
        if link.switches != switches:
            link.mark("another protocol inside of an SSLObject")
        if link.transport is not None and link.transport.is_closing():
            link.log("closed inside of an SSLObject")


def is_leaving_tls(link: Link) -> bool:
    """Whether asyncio's transport may have let go of all that it asks."""
    return link.secure and bool(link.transport.is_closing())


def visible(link: Link) -> int | None:
    """Return how many of a link's bytes B has, or could read at once."""
    wire = link.peer.wire
    if wire is None or wire.tls or link.peer.gone or link.secure:
        return None
    if link.net == "tcp6" or link.rough or link.closed or link.upgrading:
        return None
    try:
        with link.peer.lock:  # a tape may be reading
            return link.peer.received + wire.waiting()
    except (OSError, ValueError):  # it is being closed, or was
        return None


def waits(link: Link) -> bool:
    """Whether a transport knows of bytes that it could not send."""
    if link.transport is None or link.transport.is_closing():
        return True
    return bool(link.transport.get_write_buffer_size()) or unsent(link)


def unsent(link: Link) -> bool:
    """Whether the kernel may have bytes that it has not shown to B.

    By the fd: a transport that is asked for its socket sends first.
    """
    if link.net not in ("tcp", "tcp6"):
        return link.net == "pty"  # whose other side a thread of its own feeds
    if link.number < 0:
        return True
    room = fcntl.ioctl(link.number, termios.TIOCOUTQ, b"\0" * 4)
    return int(struct.unpack("i", room)[0]) > 0
