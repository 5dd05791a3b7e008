"""End B of a connection: a plain descriptor, driven by operations.

Nothing here uses an event loop.  An operation is done at once, as far as the
kernel lets it, either by the thread of the loop in the middle of a callback,
or by a thread of the peer's own that runs a tape; what could not be sent then
is sent before what comes next.  What either side of a connection writes is cut
out of one block of random bytes, so a receiver knows what must come next, and
one lost, doubled or swapped byte is seen at once.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import random
import select
import socket
import ssl
import struct
import termios
import threading
import time
from typing import Any

BLOCK = random.Random(17).randbytes(1 << 23)
#: Where in the block each direction begins; each connection has its own place.
TO_A, TO_B, APART = 0, 1 << 22, 70_001
#: The most that one direction may carry.
MOST = 3_500_000
#: Seconds an end may take for what takes milliseconds, or tens of them where
#: a sanitizer looks on.
PATIENCE = 20.0 if "ASAN_OPTIONS" in os.environ else 2.0


class Wire:
    """A descriptor: what can be sent, and what has come."""

    tls = False

    def __init__(self, sock: Any) -> None:
        self.sock = sock
        sock.setblocking(False)
        if sock.family in (socket.AF_INET, socket.AF_INET6):
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)

    def fileno(self) -> int:
        return int(self.sock.fileno())

    def send(self, data: bytes) -> int:
        """Return how many bytes were taken, maybe none."""
        try:
            return int(self.sock.send(data, socket.MSG_NOSIGNAL))
        except (BlockingIOError, InterruptedError):
            return 0

    def recv(self, most: int) -> bytes | None:
        """Return what is there, None if nothing is, b"" at the end."""
        try:
            return bytes(self.sock.recv(most))
        except (BlockingIOError, InterruptedError):
            return None

    def waiting(self) -> int:
        """Return how many bytes have come and were not read."""
        room = fcntl.ioctl(self.fileno(), termios.FIONREAD, b"\0" * 4)
        return int(struct.unpack("i", room)[0])

    def flush(self) -> bool:
        """Send what is queued here; return whether nothing is left."""
        return True

    def end(self) -> None:
        self.sock.shutdown(socket.SHUT_WR)

    def close(self) -> None:
        self.sock.close()

    def reset(self) -> None:
        with contextlib.suppress(OSError):
            self.sock.setsockopt(
                socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0)
            )
        self.sock.close()


class PipeWire(Wire):
    """A pair of pipes, or the master of a terminal."""

    def __init__(self, reads: int, writes: int) -> None:
        self.reads, self.writes = reads, writes
        for fd in {reads, writes} - {-1}:
            os.set_blocking(fd, False)

    def fileno(self) -> int:
        return self.reads if self.reads >= 0 else self.writes

    def send(self, data: bytes) -> int:
        if self.writes < 0:
            raise BrokenPipeError
        try:
            return os.write(self.writes, data)
        except BlockingIOError:
            return 0

    def recv(self, most: int) -> bytes | None:
        if self.reads < 0:
            return b""
        try:
            return os.read(self.reads, most)
        except BlockingIOError:
            return None

    def end(self) -> None:
        if self.writes >= 0 and self.writes != self.reads:
            os.close(self.writes)
            self.writes = -1

    def close(self) -> None:
        for fd in {self.reads, self.writes} - {-1}:
            os.close(fd)
        self.reads = self.writes = -1

    reset = close


class TlsWire(Wire):
    """TLS over another wire, which may be one of TLS again.

    *early* is sent together with the last flight of the handshake, where the
    version of TLS lets this side do so.
    """

    tls = True

    def __init__(
        self, below: Wire, context: ssl.SSLContext, server: bool
    ) -> None:
        self.below = below
        self.came, self.goes = ssl.MemoryBIO(), ssl.MemoryBIO()
        self.object = context.wrap_bio(
            self.came,
            self.goes,
            server_side=server,
            server_hostname=None if server else "localhost",
        )
        self.ready = False
        self.held = b""

    def fileno(self) -> int:
        return self.below.fileno()

    def flush(self) -> bool:
        self.held += self.goes.read()
        while self.held:
            sent = self.below.send(self.held)
            if not sent:
                return False
            self.held = self.held[sent:]
        return self.below.flush()

    def fill(self) -> bool:
        """Take what has come; return whether there was anything."""
        data = self.below.recv(1 << 16)
        if data is None:
            return False
        if data:
            self.came.write(data)
        else:
            self.came.write_eof()
        return True

    def shake(self, early: bytes = b"") -> bool:
        """Go on with the handshake; return whether it is done."""
        while not self.ready:
            try:
                self.object.do_handshake()
            except ssl.SSLWantReadError:
                self.flush()
                if not self.fill():
                    return False
            else:
                self.ready = True
                if early:
                    self.object.write(early)
        self.flush()
        return True

    def send(self, data: bytes) -> int:
        if not self.flush():
            return 0
        sent = self.object.write(data[:16384])
        self.flush()
        return sent

    def recv(self, most: int) -> bytes | None:
        while True:
            try:
                return self.object.read(most)
            except ssl.SSLWantReadError:
                self.flush()
                if not self.fill():
                    return None
            except ssl.SSLZeroReturnError:
                return b""

    def waiting(self) -> int:
        return -1

    def end(self) -> None:
        with contextlib.suppress(ssl.SSLWantReadError, ssl.SSLError):
            self.object.unwrap()
        self.flush()

    def close(self) -> None:
        self.below.close()

    def reset(self) -> None:
        self.below.reset()


def wait_for(wire: Wire, until: float, sending: bool) -> bool:
    """Wait until a wire can be used; return whether time is left."""
    left = until - time.monotonic()
    if left <= 0:
        return False
    poll = select.poll()
    poll.register(wire.fileno(), select.POLLIN)
    if isinstance(wire, PipeWire) and wire.writes not in (-1, wire.fileno()):
        if sending:
            poll.register(wire.writes, select.POLLOUT)
    elif sending:
        poll.modify(wire.fileno(), select.POLLIN | select.POLLOUT)
    poll.poll(min(left, 0.003) * 1000)
    return True


class Peer:
    """What an end B has done and seen."""

    def __init__(self, index: int = 0) -> None:
        self.lock = threading.RLock()  # a tape's thread, and the loop's
        self.wire: Wire | None = None  # until it is connected
        self.to_a = TO_A + index * APART
        self.to_b = TO_B + index * APART
        self.wanted = 0  # to be sent, in all
        self.sent = 0
        self.received = 0
        self.ending = False  # an end is to be sent after what is wanted
        self.ended = ""  # how the other side's bytes ended
        self.broken = ""  # why nothing can be sent any more
        self.gone = False  # closed, or reset, by an operation
        self.problems: list[str] = []
        self.outside = False  # the TLS around all that was written
        self.stop = False  # nothing more is to be waited for
        self.noise = b""  # sent, and part of no stream

    # -- sending ------------------------------------------------------------

    def push(self) -> bool:
        """Send what the kernel takes; return whether all is sent."""
        if self.gone or self.broken:
            return True
        if self.wire is None:
            return False
        try:
            while self.sent < self.wanted:
                start = self.to_a + self.sent
                size = min(self.wanted - self.sent, 1 << 18)
                sent = self.wire.send(BLOCK[start : start + size])
                if not sent:
                    return False
                self.sent += sent
            if not self.wire.flush():
                return False
            if self.ending:
                self.ending = False
                self.broken = "ended"
                self.wire.end()
        except (OSError, ssl.SSLError) as exc:
            self.broken = type(exc).__name__
        return True

    def do_send(self, size: int) -> None:
        if not (self.gone or self.broken or self.ending):
            self.wanted = min(self.wanted + size, MOST)
        self.push()

    def do_eof(self) -> None:
        if not (self.gone or self.broken):
            self.ending = True
        self.push()

    # -- receiving ----------------------------------------------------------

    def take(self, data: bytes) -> None:
        if self.outside:
            return
        start = self.to_b + self.received
        if data != BLOCK[start : start + len(data)]:
            self.problems.append(
                f"B got wrong bytes after {self.received}: "
                + where(data, self.to_b)
            )
        self.received += len(data)

    def do_recv(self, most: int) -> None:
        """Read up to so many bytes of what is there."""
        while self.wire and most > 0 and not (self.gone or self.ended):
            try:
                data = self.wire.recv(min(most, 1 << 18))
            except ssl.SSLError as exc:
                self.ended = type(exc).__name__
                self.note_tls(exc)
            except OSError as exc:
                self.ended = type(exc).__name__
            else:
                if data is None:
                    return
                if not data:
                    self.ended = "end"
                self.take(data)
                most -= len(data)

    def note_tls(self, exc: ssl.SSLError) -> None:
        """Tell what is no TLS apart from a connection that was cut."""
        if isinstance(exc, ssl.SSLEOFError):
            if self.broken == "ended" and not self.wire.came.eof:
                # An SSLObject may read no more after its own end.
                self.broken = "reads no more"
        else:
            reason = exc.reason or ""
            if "UNEXPECTED_EOF" not in reason and not self.noise:
                self.problems.append(f"B could not decode TLS: {reason}")

    # -- ends ---------------------------------------------------------------

    def do_close(self) -> None:
        if self.wire and not self.gone:
            self.gone = True
            self.wire.close()

    def do_rst(self) -> None:
        if self.wire and not self.gone:
            self.gone = True
            self.wire.reset()

    def do_rcvbuf(self, size: int) -> None:
        self.set_buffer(socket.SO_RCVBUF, size)

    def do_sndbuf(self, size: int) -> None:
        self.set_buffer(socket.SO_SNDBUF, size)

    def set_buffer(self, which: int, size: int) -> None:
        wire = self.wire
        while isinstance(wire, TlsWire):
            wire = wire.below
        sock = getattr(wire, "sock", None)
        if sock is None or self.gone:
            return
        if which == socket.SO_RCVBUF:
            # Never smaller than the window A knows: see prog_links.shrink().
            least = sock.getsockopt(socket.SOL_SOCKET, which) // 2
            size = max(size, least)
        sock.setsockopt(socket.SOL_SOCKET, which, size)

    def do_shake(self, early: int = 0) -> None:
        """Go through a TLS handshake to its end."""
        wire = self.wire
        assert isinstance(wire, TlsWire)
        until = time.monotonic() + PATIENCE
        start = self.to_a + self.sent
        piece = BLOCK[start : start + early]
        self.wanted = max(self.wanted, self.sent + early)
        try:
            while not self.shake_on(wire, piece):
                if self.stop or not wait_for(wire, until, bool(wire.held)):
                    self.broken = self.ended = "no handshake"
                    return
        except (OSError, ssl.SSLError) as exc:
            self.broken = self.ended = type(exc).__name__
            return
        self.sent += early

    def shake_on(self, wire: TlsWire, early: bytes) -> bool:
        with self.lock:
            return wire.shake(early)

    def do(self, op: tuple[Any, ...]) -> None:
        with self.lock:
            getattr(self, f"do_{op[0]}")(*op[1:])

    def finish(self, half_close: bool) -> None:
        """Send all that is to be sent, and read to the end or to ``stop``."""
        until = time.monotonic() + PATIENCE
        # Enlarged: through the smallest buffers, 300 KiB take seconds.
        self.do(("rcvbuf", 1 << 18))
        if half_close:
            self.do(("eof",))
        while self.wire and not self.gone:
            with self.lock:
                sent = self.push()
                self.do_recv(1 << 22)
            if self.ended == "end" and isinstance(self.wire, TlsWire):
                # It answers, and then TLS may be around this TLS.
                with contextlib.suppress(OSError):
                    self.wire.end()
                    while not (self.stop or self.wire.flush()):
                        if not wait_for(self.wire, until, True):
                            break
                self.wire = self.wire.below
                self.ended, self.broken = "", "ended"
                self.outside = True
            if self.ended:
                if self.ended != "end":
                    self.wire.close()  # or the other side waits for ever
                break
            if self.stop or not wait_for(self.wire, until, not sent):
                self.ended = "nothing"
        self.push()


def where(data: bytes, base: int) -> str:
    """Say where in the block some bytes are from."""
    at = BLOCK.find(data[:16]) if len(data) >= 4 else -1
    if at < 0:
        return f"{len(data)} unknown bytes, {data[:24]!r}"
    if base <= at < base + MOST:
        return f"{len(data)} that belong at {at - base}"
    return f"{len(data)} of the other direction's, at {at}"
