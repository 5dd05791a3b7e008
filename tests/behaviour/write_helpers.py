"""Helpers for tests of when written bytes are sent."""

from __future__ import annotations

import asyncio
import contextlib
import socket
import time
from collections.abc import AsyncIterator, Callable
from typing import Any

from builds import FREE_THREADED
from net_helpers import Recorder, iterations, spin

#: Without a GIL another thread may write to the stream: nothing is corked.
HOLDS = not FREE_THREADED
#: Seconds to wait for bytes that should have been sent.
LIMIT = 10
#: The least time after which the sender sends: FIRST_NS of sender.c.
SENT_AHEAD_NS = 2_000_000
#: A loaded machine makes many iterations long, but not so many in a row.
ATTEMPTS = 100


class Peer:
    """The other end: reads what was sent, and waits for what was not."""

    def __init__(self, sock: socket.socket) -> None:
        self.sock = sock
        sock.settimeout(LIMIT)

    def look(self) -> bytes:
        """Return what has come."""
        self.sock.setblocking(False)
        try:
            return self.sock.recv(1 << 20)
        except BlockingIOError:
            return b""
        finally:
            self.sock.settimeout(LIMIT)

    def receive(self, size: int) -> bytes:
        """Wait for this many bytes, or for the end."""
        got = b""
        while len(got) < size and (part := self.sock.recv(size - len(got))):
            got += part
        return got


async def busy(seconds: float = 0.1) -> None:
    """Make iterations for so long; the default ends a loop's quiet."""
    end = time.monotonic() + seconds
    await spin(lambda: time.monotonic() > end)


async def end(transport: Any) -> None:
    """Abort what is not on its way to its end."""
    if not transport.is_closing():
        transport.abort()
    await iterations()


@contextlib.asynccontextmanager
async def served(
    make: Callable[[], Any] = Recorder,
) -> AsyncIterator[tuple[Any, Peer]]:
    """A server's transport, whose descriptor no program has, and its peer."""
    protocol = make()
    server = await asyncio.get_running_loop().create_server(
        lambda: protocol, "127.0.0.1", 0
    )
    with socket.create_connection(server.sockets[0].getsockname()) as far:
        await spin(lambda: protocol.transport)
        try:
            yield protocol.transport, Peer(far)
        finally:
            await end(protocol.transport)
            server.close()
            await server.wait_closed()


@contextlib.asynccontextmanager
async def given(method: str) -> AsyncIterator[tuple[Any, Peer]]:
    """A transport on a socket that the program made, and its peer."""
    near, far = socket.socketpair()
    with far:
        connect = getattr(asyncio.get_running_loop(), method)
        transport, _ = await connect(Recorder, sock=near)
        try:
            yield transport, Peer(far)
        finally:
            await end(transport)


def schedule(work: Callable[[], Any]) -> asyncio.Future[Any]:
    """Have it called in a callback of its own; return its future result."""
    loop = asyncio.get_running_loop()
    done = loop.create_future()

    def run() -> None:
        try:
            done.set_result(work())
        except Exception as exc:
            done.set_exception(exc)

    loop.call_soon(run)
    return done


async def in_callbacks(*works: Callable[[], object]) -> None:
    """Call each of them in an iteration of its own, in order."""
    for work in works:
        await schedule(work)


@contextlib.asynccontextmanager
async def two_served() -> AsyncIterator[tuple[Any, Peer, Any, Peer]]:
    """Two servers' transports, each followed by its peer."""
    async with served() as (one, first), served() as (two, second):
        yield one, first, two, second


async def in_one_iteration(*works: Callable[[], Any]) -> list[Any]:
    """Call these in one iteration, each in a callback of its own."""
    done = [schedule(work) for work in works]
    return [await future for future in done]


async def in_a_short_one(*works: Callable[[], Any], peers: Any) -> list[Any]:
    """Call these in one iteration that ends before the sender sends.

    A longer one is repeated, after these peers have read its bytes.
    """
    for _ in range(ATTEMPTS):
        begin_ns = time.monotonic_ns()
        seen = await in_one_iteration(*works)
        if time.monotonic_ns() - begin_ns < SENT_AHEAD_NS:
            return seen
        await iterations()
        for peer in peers:
            peer.look()
    raise AssertionError("each iteration was too long")
