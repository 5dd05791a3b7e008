"""What the scenarios are made of: protocols, servers, and reports."""

from __future__ import annotations

import asyncio
import contextlib
import socket
import ssl
from collections.abc import AsyncIterator, Callable, Coroutine, Iterator
from pathlib import Path
from typing import Any

CERTS = Path(__file__).resolve().parent.parent / "certs"
#: What a failing call may raise in an application.
FAILURES = (OSError, MemoryError, EOFError)
LOCAL = "127.0.0.1"

reported: list[BaseException] = []


class Early(Exception):
    """A connection ended before all had come."""


def note(exc: BaseException | None) -> None:
    """Record a report."""
    if exc is not None:
        reported.append(exc)


def same(got: Any, wanted: bytes) -> None:
    """Check bytes; a beginning of what is wanted is an early end."""
    assert got == wanted[: len(got)], (bytes(got[:40]), wanted[:40])
    if len(got) < len(wanted):
        raise Early


def enough(condition: object) -> None:
    """What a callback should have done is missing."""
    if not condition:
        raise Early


def _contexts() -> tuple[ssl.SSLContext, ssl.SSLContext]:
    server = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    server.load_cert_chain(CERTS / "localhost.pem", CERTS / "localhost.key")
    client = ssl.create_default_context(cafile=str(CERTS / "ca.pem"))
    return server, client


SERVER_CONTEXT, CLIENT_CONTEXT = _contexts()


class Echo(asyncio.Protocol):
    """Sends back what it gets, in two writes."""

    def connection_made(self, transport: Any) -> None:
        self.transport = transport

    def data_received(self, data: bytes) -> None:
        self.transport.write(data[:3])
        self.transport.write(data[3:])

    def connection_lost(self, exc: Exception | None) -> None:
        note(exc)


class BufferedEcho(asyncio.BufferedProtocol):
    """Sends back what it gets from a buffer of its own."""

    def connection_made(self, transport: Any) -> None:
        self.transport = transport
        self.memory = bytearray(30_000)

    def get_buffer(self, sizehint: int) -> bytearray:
        return self.memory

    def buffer_updated(self, count: int) -> None:
        self.transport.write(bytes(self.memory[:count]))

    def connection_lost(self, exc: Exception | None) -> None:
        note(exc)


class Client(asyncio.Protocol):
    """Collects what comes until the connection is lost."""

    def __init__(self) -> None:
        self.got = bytearray()
        self.wanted = 0
        self.waiter: asyncio.Future[None] | None = None
        self.lost = asyncio.get_running_loop().create_future()

    def data_received(self, data: bytes) -> None:
        self.got += data
        if self.waiter and len(self.got) >= self.wanted:
            if not self.waiter.done():
                self.waiter.set_result(None)

    def connection_lost(self, exc: Exception | None) -> None:
        note(exc)
        if not self.lost.done():
            self.lost.set_result(None)

    async def take(self, count: int) -> bytes:
        """Return so many bytes, or say that they will not come."""
        if len(self.got) < count:
            self.wanted = count
            loop = asyncio.get_running_loop()
            self.waiter = loop.create_future()
            await asyncio.wait(
                [self.waiter, self.lost], return_when="FIRST_COMPLETED"
            )
        if len(self.got) < count:
            raise Early
        taken = bytes(self.got[:count])
        del self.got[:count]
        return taken


async def settle() -> None:
    """Let callbacks that are queued run, and those that they queue."""
    for _ in range(4):
        await asyncio.sleep(0)


@contextlib.asynccontextmanager
async def closing(server: Any) -> AsyncIterator[Any]:
    try:
        yield server
    finally:
        server.close()
        await settle()


@contextlib.contextmanager
def sockets() -> Iterator[tuple[socket.socket, socket.socket]]:
    left, right = socket.socketpair()
    with left, right:
        left.setblocking(False)
        right.setblocking(False)
        yield left, right


@contextlib.asynccontextmanager
async def stream_server(
    serve: Callable[[Any, Any], Coroutine[Any, Any, None]],
) -> AsyncIterator[Any]:
    """Serve streams; errors of a handler are recorded."""

    async def handle(reader: Any, writer: Any) -> None:
        try:
            await serve(reader, writer)
        except Early:
            return
        except (*FAILURES, ssl.SSLError) as exc:
            note(exc)
        finally:
            writer.transport.abort()

    server = await asyncio.start_server(handle, LOCAL, 0)
    async with closing(server):
        yield server.sockets[0].getsockname()


@contextlib.asynccontextmanager
async def connected(address: Any) -> AsyncIterator[Any]:
    reader, writer = await asyncio.open_connection(*address)
    try:
        yield reader, writer
    finally:
        writer.transport.abort()
        await settle()
