"""What the tests of TLS stand on: each way TLS may be done, and pairs.

fastloop may do TLS in more than one way: through libssl, through `SSLObject`
called from C, and as asyncio does it.  A test here runs on asyncio and on
each of them, which FASTLOOP_DISABLE chooses.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Awaitable, Callable, Iterator
from typing import Any

import pytest
from tls_ends import TlsLink, tls_link

#: The loop, and what FASTLOOP_DISABLE says while it is made.
ENGINES = {
    "asyncio": ("asyncio", ""),
    "fastloop": ("fastloop", ""),
    "fastloop-no-libssl": ("fastloop", "libssl"),
    "fastloop-no-native": ("fastloop", "native_tls"),
}


def pytest_configure(config: pytest.Config) -> None:
    """Name the mark of this folder."""
    config.addinivalue_line(
        "markers", "native_tls: expected of fastloop's own TLS alone"
    )


@pytest.fixture(params=ENGINES)
def loop_kind(
    request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch
) -> str:
    """Return which loop runs the test, and say how it shall do TLS."""
    kind, disabled = ENGINES[request.param]
    native = kind == "fastloop" and disabled != "native_tls"
    if not native and request.node.get_closest_marker("native_tls"):
        pytest.skip("asyncio's SSLProtocol does the TLS, and has this defect")
    names = [os.environ.get("FASTLOOP_DISABLE", ""), disabled]
    monkeypatch.setenv("FASTLOOP_DISABLE", ",".join(filter(None, names)))
    return kind


@pytest.fixture
def tls_pair(
    run: Callable[[Any], Any],
) -> Iterator[Callable[..., Awaitable[TlsLink]]]:
    """Return what opens a TLS transport with a peer that sees each byte.

    The coroutine function takes the protocol and the options of
    `tls_ends.tls_link`; the pair is closed and checked after the test.
    """
    pairs = contextlib.AsyncExitStack()

    async def open_pair(*args: Any, **options: Any) -> TlsLink:
        return await pairs.enter_async_context(tls_link(*args, **options))

    yield open_pair
    run(pairs.aclose())


@pytest.fixture
def settled_pair(
    tls_pair: Callable[..., Awaitable[TlsLink]],
) -> Callable[..., Awaitable[TlsLink]]:
    """As `tls_pair`, after the handshake's tail: no data was recorded yet."""

    async def open_pair(*args: Any, **options: Any) -> TlsLink:
        link = await tls_pair(*args, **options)
        await link.settle()
        link.clear()
        return link

    return open_pair
