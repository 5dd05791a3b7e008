"""Two ends joined, for tests written as coroutines (see tests/README.md)."""

from __future__ import annotations

import contextlib
from collections.abc import Awaitable, Callable, Iterator
from typing import Any

import pytest
from net_helpers import Link, link
from tls_ends import TextPeer, tls_link

Run = Callable[[Any], Any]


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
