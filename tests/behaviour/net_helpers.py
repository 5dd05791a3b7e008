"""What the network tests share.

Most tests look at one transport of the loop under test whose other end is a
plain socket, so that the test decides what the network does: `link()` makes
such a pair for each way a stream transport can come to be. `Recorder` writes
down every call a protocol gets and notices calls that come nested or out of
order; waiting is always for one of these calls, never for time to pass.
"""

from __future__ import annotations

import asyncio
import collections
import contextlib
import hashlib
import os
import pathlib
import random
import socket
import ssl
import struct
import sys
from collections.abc import AsyncIterator, Callable, Coroutine
from typing import Any

import pytest

KIB = 1024
MIB = 1024 * 1024

PY312 = sys.version_info >= (3, 12)
PY313 = sys.version_info >= (3, 13)
PY314 = sys.version_info >= (3, 14)
PY315 = sys.version_info >= (3, 15)

CERTS = pathlib.Path(__file__).parent.parent / "certs"

KINDS = ("tcp-client", "tcp-server", "unix")

#: Over TLS, also where it is not fastloop's own (tls/conftest.py).
TLS_KINDS = (
    "tls-client",
    "tls-server",
    "tls-start-tls-client",
    "tls-start-tls-server",
    "tls-client-no-libssl",
    "tls-server-no-libssl",
    "tls-client-no-native",
    "tls-server-no-native",
)

every_kind = pytest.mark.parametrize("kind", KINDS)
every_kind_and_tls = pytest.mark.parametrize("kind", KINDS + TLS_KINDS)


async def iterations(count: int = 5) -> None:
    """Let the loop make *count* iterations."""
    for _ in range(count):
        await asyncio.sleep(0)


async def waiting(coro: Coroutine[Any, Any, Any]) -> asyncio.Task[Any]:
    """Return a task that runs ``coro`` and has begun to wait."""
    task = asyncio.create_task(coro)
    await iterations(3)
    assert not task.done()
    return task


async def spin(predicate: Callable[[], Any]) -> None:
    """Let the loop run until *predicate* holds."""
    while not predicate():
        await asyncio.sleep(0)


class _Journal:
    """The record of one protocol: `events` is a list of (name, value)."""

    # Calls that a transport may make while the protocol is in another one.
    MAY_NEST = frozenset({"pause", "resume", "get_buffer"})

    def __init__(self, **hooks: Callable[..., Any]) -> None:
        self.events: list[tuple[str, Any]] = []
        self.data = bytearray()
        self.transport: Any = None
        self.faults: list[str] = []
        self._counts: collections.Counter[str] = collections.Counter()
        self._hooks = hooks
        self._inside: list[str] = []
        self._waiters: list[asyncio.Future[None]] = []

    def note(self, name: str, value: Any = None, *args: Any) -> Any:
        """Write one call down, run its hook, wake waiting tests."""
        if self._inside and name not in self.MAY_NEST:
            self.faults.append(f"{name} inside {self._inside[-1]}")
        if self.lost:
            self.faults.append(f"{name} after connection_lost")
        if name == "made" and self.events:
            self.faults.append("connection_made after other calls")
        if name in ("eof", "data") and self.count("eof"):
            self.faults.append(f"{name} after eof_received")
        self._counts[name] += 1
        self._inside.append(name)
        self.events.append((name, value))
        hook = self._hooks.get(name)
        try:
            return hook(self, *args) if hook is not None else None
        finally:
            self._inside.pop()
            for waiter in self._waiters:
                if not waiter.done():
                    waiter.set_result(None)

    def connection_made(self, transport: Any) -> None:
        self.transport = transport
        self.note("made", transport)

    def eof_received(self) -> Any:
        return self.note("eof")

    def connection_lost(self, exc: BaseException | None) -> None:
        self.note("lost", exc, exc)

    def pause_writing(self) -> None:
        self.note("pause")

    def resume_writing(self) -> None:
        self.note("resume")

    @property
    def names(self) -> list[str]:
        """The calls in order; neighbouring data calls count as one."""
        names: list[str] = []
        for name, _ in self.events:
            if name != "data" or names[-1:] != ["data"]:
                names.append(name)
        return names

    @property
    def lost(self) -> bool:
        return self._counts["lost"] > 0

    @property
    def exc(self) -> BaseException | None:
        """What connection_lost was called with."""
        (exc,) = [value for name, value in self.events if name == "lost"]
        return exc

    def count(self, name: str) -> int:
        return self._counts[name]

    async def wait(self, predicate: Callable[[], Any]) -> None:
        """Wait for a call after which *predicate* holds."""
        while not predicate():
            waiter = asyncio.get_running_loop().create_future()
            self._waiters.append(waiter)
            try:
                await waiter
            finally:
                self._waiters.remove(waiter)

    async def wait_for(self, name: str, count: int = 1) -> None:
        await self.wait(lambda: self.count(name) >= count)

    async def wait_data(self, size: int) -> bytes:
        """Wait for *size* bytes; return all that were received."""
        await self.wait(lambda: len(self.data) >= size or self.lost)
        return bytes(self.data)

    async def wait_lost(self) -> BaseException | None:
        await self.wait(lambda: self.lost)
        return self.exc

    def check(self) -> None:
        assert self.faults == []


class Recorder(_Journal, asyncio.Protocol):
    """A Protocol that records. Hooks: made, data, eof, lost, pause, resume.

    A hook is called with the recorder (and, for data, the bytes; for lost,
    the exception); the one for eof gives eof_received its result.
    """

    def data_received(self, data: bytes) -> None:
        if type(data) is not bytes:
            self.faults.append(f"data is {type(data)}")
        if not data:
            self.faults.append("data is empty")
        self.data += data
        self.note("data", len(data), data)


class BufferedRecorder(_Journal, asyncio.BufferedProtocol):
    """A BufferedProtocol that records; get_buffer gives *size* bytes."""

    def __init__(self, size: int = 4096, **hooks: Any) -> None:
        super().__init__(**hooks)
        self.buffer = bytearray(size)
        self.hints: list[int] = []

    def get_buffer(self, sizehint: int) -> Any:
        self.hints.append(sizehint)
        hook = self._hooks.get("get_buffer")
        return self.buffer if hook is None else hook(self, sizehint)

    def buffer_updated(self, nbytes: int) -> None:
        self.data += self.buffer[:nbytes]
        self.note("data", nbytes, nbytes)


class Peer:
    """The far end of a connection: a non-blocking plain socket."""

    def __init__(self, sock: socket.socket) -> None:
        sock.setblocking(False)
        self.sock = sock
        self.loop = asyncio.get_running_loop()

    async def send(self, data: Any) -> None:
        await self.loop.sock_sendall(self.sock, data)

    async def recv(self, size: int = 65536) -> bytes:
        return await self.loop.sock_recv(self.sock, size)

    async def recv_exactly(self, size: int) -> bytes:
        got = bytearray()
        while len(got) < size:
            chunk = await self.recv(min(size - len(got), MIB))
            assert chunk, f"end of stream after {len(got)} of {size} bytes"
            got += chunk
        return bytes(got)

    async def recv_all(self) -> bytes:
        got = bytearray()
        while chunk := await self.recv(MIB):
            got += chunk
        return bytes(got)

    def send_eof(self) -> None:
        self.sock.shutdown(socket.SHUT_WR)

    def reset(self) -> None:
        """Close so that the other side sees ECONNRESET (TCP)."""
        linger = struct.pack("ii", 1, 0)
        self.sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, linger)
        self.sock.close()

    def close(self) -> None:
        self.sock.close()


class Link:
    """A transport under test, its protocol, and the far end."""

    def __init__(self, transport: Any, protocol: Any, peer: Peer) -> None:
        self.transport = transport
        self.protocol = protocol
        self.peer = peer

    async def __aenter__(self) -> Any:
        return self

    async def __aexit__(self, kind: Any, *raised: Any) -> None:
        """Tear it down; check it if the test has not failed."""
        try:
            if kind is None:
                if not self.protocol.lost:
                    self.transport.abort()
                await self.protocol.wait_lost()
                await iterations(2)
                self.protocol.check()
        finally:
            # asyncio's abort() fails where close() has flushed and finished.
            if not self.protocol.lost:
                self.transport.abort()
            self.peer.close()

    def shrink(self) -> None:
        """Keep the kernel's buffers small, so that writes soon wait.

        Not smaller: below the loopback's segment size (64 KiB) TCP
        falls back to its persist timer, 0.2 s a segment.
        """
        sock = self.transport.get_extra_info("socket")
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 128 * KIB)

    def fill(self, chunk: bytes = b"x" * 65536) -> int:
        """Write until the transport has to buffer; returns the total."""
        total = 0
        while not self.transport.get_write_buffer_size():
            self.transport.write(chunk)
            total += len(chunk)
        return total


def listening_socket() -> socket.socket:
    """A plain TCP listener on the loopback address, non-blocking."""
    sock = socket.socket()
    sock.bind(("127.0.0.1", 0))
    sock.listen(100)
    sock.setblocking(False)
    return sock


def fill_socket(sock: socket.socket) -> int:
    """Send until the kernel takes no more; return how many bytes it took."""
    size = 0
    with contextlib.suppress(BlockingIOError):
        while True:
            size += sock.send(bytes(65536))
    return size


def tcp_socketpair() -> tuple[socket.socket, socket.socket]:
    """Two ends of a connected TCP connection."""
    listener = listening_socket()
    with listener:
        near = socket.socket()
        near.connect(listener.getsockname())
        listener.setblocking(True)
        far, _ = listener.accept()
    return near, far


#: The methods that open a transport on a given socket.
OPENINGS = {
    "stream": "create_connection",
    "datagrams": "create_datagram_endpoint",
    "read pipe": "connect_read_pipe",
    "write pipe": "connect_write_pipe",
}


def open_on_pair(loop: Any, kind: str, factory: Any) -> tuple[Any, Any, Any]:
    """A coroutine that opens a transport on one of a pair, and the pair."""
    near, far = socket.socketpair(
        type=socket.SOCK_DGRAM if kind == "datagrams" else socket.SOCK_STREAM
    )
    near.setblocking(False)
    make = getattr(loop, OPENINGS[kind])
    if "pipe" in kind:
        return make(factory, near), near, far
    return make(factory, sock=near), near, far


def moved_to(fd: int, sock: socket.socket) -> socket.socket:
    """The same non-blocking socket under another fd, which it closes first."""
    old = sock.detach()
    if old != fd:
        os.dup2(old, fd)
        os.close(old)
    moved = socket.socket(fileno=fd)
    moved.setblocking(False)
    return moved


async def _open(kind: str, protocol: Any) -> tuple[Any, socket.socket]:
    loop = asyncio.get_running_loop()
    if kind == "tcp-client":
        with listening_socket() as listener:
            address = listener.getsockname()
            opened = await loop.create_connection(lambda: protocol, *address)
            sock, _ = await loop.sock_accept(listener)
        return opened[0], sock
    if kind == "tcp-server":
        server = await loop.create_server(lambda: protocol, "127.0.0.1", 0)
        sock = socket.create_connection(server.sockets[0].getsockname())
        await protocol.wait_for("made")
        server.close()
        return protocol.transport, sock
    near, sock = socket.socketpair()
    opened = await loop.create_unix_connection(lambda: protocol, sock=near)
    return opened[0], sock


@contextlib.asynccontextmanager
async def link(kind: str, protocol: Any = None) -> AsyncIterator[Link]:
    """A connected Link of *kind*; torn down and checked at the end."""
    protocol = protocol or Recorder()
    transport, sock = await _open(kind, protocol)
    async with Link(transport, protocol, Peer(sock)) as joined:
        yield joined


async def end(*protocols: Any) -> None:
    """Abort what is still connected; wait for the ends and check them all."""
    for protocol in protocols:
        if not protocol.lost:
            protocol.transport.abort()
    for protocol in protocols:
        await protocol.wait_lost()
        protocol.check()


def pattern(size: int, seed: int = 1) -> bytes:
    """*size* bytes in which any loss, doubling or exchange shows."""
    return random.Random(seed).randbytes(size)


def digest(data: Any) -> str:
    return hashlib.sha256(data).hexdigest()


def server_context(name: str = "localhost") -> ssl.SSLContext:
    """A server's TLS context with the test certificate *name*."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(CERTS / f"{name}.pem", CERTS / f"{name}.key")
    return context


def client_context() -> ssl.SSLContext:
    """A client's TLS context that trusts the test authority alone."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.load_verify_locations(CERTS / "ca.pem")
    return context


def for_tls(secure: bool = True) -> tuple[dict[str, Any], dict[str, Any]]:
    """What opens a server, and its client, with TLS; or nothing."""
    if not secure:
        return {}, {}
    client = {"ssl": client_context(), "server_hostname": "localhost"}
    return {"ssl": server_context()}, client
