"""Two ends joined, for tests written as coroutines.

A test that takes one of these fixtures is `async def`:

    @every_kind
    async def test_written_data_arrives(transport_pair):
        c = await transport_pair(Recorder())
        c.transport.write(b"data")
        assert await c.peer.recv_exactly(4) == b"data"

Recorder (net_helpers.py) writes down its calls in `events` and what it
received in `data`; a test waits for one of these calls and never for time to
pass.
"""

from __future__ import annotations

import asyncio
import contextlib
import socket
from collections.abc import Awaitable, Callable, Iterator
from typing import Any

import pytest
from net_helpers import Link, link
from tls_ends import TextPeer, tls_link

Run = Callable[[Any], Any]
Stream = tuple[asyncio.StreamReader, asyncio.StreamWriter]


@pytest.fixture
def transport_pair(
    run: Run, kind: str
) -> Iterator[Callable[..., Awaitable[Link]]]:
    """Return what opens a transport of KIND (@every_kind) with its peer.

    The coroutine function takes the protocol, by default one that records.
    The transport, the protocol and the peer (a plain socket) are those of the
    Link that it returns; the pair is closed and checked after the test.
    """
    pairs = contextlib.AsyncExitStack()

    async def open_pair(protocol: Any = None) -> Link:
        if kind.startswith("tls"):
            side = kind.removeprefix("tls-").partition("-no-")[0]
            pair = await pairs.enter_async_context(
                tls_link(protocol, side=side)
            )
            return Link(pair.transport, pair.protocol, TextPeer(pair.peer))
        return await pairs.enter_async_context(link(kind, protocol))

    yield open_pair
    run(pairs.aclose())


@pytest.fixture
def stream_pair(run: Run) -> Iterator[tuple[Stream, Stream]]:
    """Return two (reader, writer) that are joined; they are closed after."""

    async def open_both() -> tuple[Stream, Stream]:
        near, far = socket.socketpair()
        return (
            await asyncio.open_unix_connection(sock=near),
            await asyncio.open_unix_connection(sock=far),
        )

    async def close_both() -> None:
        for _, writer in pair:
            writer.close()
        for _, writer in pair:
            with contextlib.suppress(ConnectionError):
                await writer.wait_closed()

    pair = run(open_both())
    yield pair
    run(close_both())
