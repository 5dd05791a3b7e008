"""Small tools of the behaviour tests; the fixtures are one folder up."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import os
import socket
import subprocess
import sys
from collections.abc import Awaitable, Callable, Iterator
from typing import Any

import pytest
from hosts import address_kind, host
from net_helpers import Link, link
from patience import PATIENCE
from tls_ends import TextPeer, tls_link

__all__ = ["address_kind", "host"]


@pytest.fixture
def iterate(loop: asyncio.AbstractEventLoop) -> Callable[..., None]:
    """Return a function that runs exactly so many iterations of ``loop``."""

    def iterate(count: int = 1) -> None:
        for _ in range(count):
            loop.call_soon(loop.stop)
            loop.run_forever()

    return iterate


@pytest.fixture
def debug(
    loop: asyncio.AbstractEventLoop,
) -> Iterator[asyncio.AbstractEventLoop]:
    """Return ``loop`` in debug mode."""
    loop.set_debug(True)
    yield loop
    if not loop.is_closed():
        loop.set_debug(False)


@pytest.fixture
def python() -> Callable[..., subprocess.CompletedProcess[str]]:
    """Return a function that runs an interpreter with words to its end."""

    def run(*words: str, **env: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [sys.executable, *words],
            env=os.environ | env,
            capture_output=True,
            text=True,
            timeout=PATIENCE,
        )

    return run


@pytest.fixture
def loop_class(
    loop_factory: Callable[[], asyncio.AbstractEventLoop],
) -> type[asyncio.AbstractEventLoop]:
    """Return the class of the loops under test, to derive one from."""
    probe = loop_factory()
    probe.close()
    return type(probe)


@pytest.fixture
def no_automatic_gc() -> Iterator[None]:
    """Collect what there is, and then only where the test does."""
    gc.collect()
    gc.disable()
    yield
    gc.enable()


@pytest.fixture
def pair() -> Iterator[tuple[socket.socket, socket.socket]]:
    """Return two connected sockets that do not block."""
    left, right = socket.socketpair()
    left.setblocking(False)
    right.setblocking(False)
    with left, right:
        yield left, right


@pytest.fixture
def child_watcher(loop: asyncio.AbstractEventLoop) -> Iterator[None]:
    """On 3.11 a child is watched by what the policy has, for ``loop``."""
    if sys.version_info >= (3, 12):
        yield
        return
    watcher = asyncio.ThreadedChildWatcher()
    asyncio.set_child_watcher(watcher)
    yield
    asyncio.set_child_watcher(None)


@pytest.fixture
def transport_pair(
    run: Callable[[Any], Any], kind: str
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
