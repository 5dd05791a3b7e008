"""What the core says of the callback that runs, for the watchdog.

asyncio has no counterpart, so these run on fastloop alone.
"""

from __future__ import annotations

import time

import pytest

pytestmark = pytest.mark.parametrize("loop_kind", ["fastloop"], indirect=True)


def test_each_callback_has_a_number_of_its_own(loop, iterate):
    loop.enable_metrics()
    found = []
    for _ in range(100):
        loop.call_soon(lambda: found.append(loop._running_callback()))
    iterate()
    numbers = [number for number, _ in found]
    assert numbers == sorted(set(numbers))
    assert all(ran_ns >= 0 for _, ran_ns in found)
    assert loop._running_callback() is None


def test_nothing_is_said_without_metrics(loop, iterate):
    found = []
    loop.call_soon(lambda: found.append(loop._running_callback()))
    iterate()
    assert found == [None]


@pytest.mark.parametrize("limit", [0.02, 0.1])
def test_how_long_it_has_run(loop, iterate, limit):
    """Below 44 ms it began by the precise clock, above by the coarse one."""
    loop.slow_callback_duration = limit
    loop.enable_metrics()
    found = []

    def callback():
        end = time.monotonic() + 0.05
        while time.monotonic() < end:
            pass
        found.append(loop._running_callback()[1])

    loop.call_soon(callback)
    began = time.monotonic_ns()
    iterate()
    took = time.monotonic_ns() - began
    assert 20e6 <= found[0] <= took + 11e6
