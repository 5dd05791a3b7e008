"""Small tools of the behaviour tests; the fixtures are one folder up."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator

import pytest


@pytest.fixture
def turn(loop: asyncio.AbstractEventLoop) -> Callable[..., None]:
    """Return a function that runs exactly so many turns of ``loop``."""

    def turn(count: int = 1) -> None:
        for _ in range(count):
            loop.call_soon(loop.stop)
            loop.run_forever()

    return turn


@pytest.fixture
def debug(
    loop: asyncio.AbstractEventLoop,
) -> Iterator[asyncio.AbstractEventLoop]:
    """Return ``loop`` in debug mode."""
    loop.set_debug(True)
    yield loop
    if not loop.is_closed():
        loop.set_debug(False)
