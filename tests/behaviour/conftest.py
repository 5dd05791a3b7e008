"""Small tools of the behaviour tests; the fixtures are one folder up."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

import pytest


@pytest.fixture
def turn(loop: asyncio.AbstractEventLoop) -> Callable[..., None]:
    """Return a function that runs exactly so many turns of ``loop``."""

    def turn(count: int = 1) -> None:
        for _ in range(count):
            loop.call_soon(loop.stop)
            loop.run_forever()

    return turn
