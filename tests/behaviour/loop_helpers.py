"""What the tests of the loop share: callbacks, and ways to schedule them."""

import asyncio
import time

import pytest

SCHEDULERS = {
    "soon": lambda loop, *call, **how: loop.call_soon(*call, **how),
    "later": lambda loop, *call, **how: loop.call_later(0, *call, **how),
    "at": lambda loop, *call, **how: loop.call_at(loop.time(), *call, **how),
    "threadsafe": lambda loop, *call, **how: loop.call_soon_threadsafe(
        *call, **how
    ),
}
every_scheduler = pytest.mark.parametrize(
    "make", SCHEDULERS.values(), ids=SCHEDULERS
)


def nothing(*args):
    pass


def spend(seconds):
    """Keep the thread busy for so long."""
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        pass


def idle_cpu(loop, seconds=0.1):
    """Return the CPU seconds this process uses while the loop waits."""
    loop.run_until_complete(asyncio.sleep(0.002))
    start = time.process_time()
    loop.run_until_complete(asyncio.sleep(seconds))
    return time.process_time() - start
