"""call_soon and what an iteration of the loop does with ready callbacks."""

import time

import pytest


@pytest.mark.parametrize("count", [0, 1, 2, 3, 4, 5, 8, 20, 255])
def test_callbacks_get_any_number_of_arguments(loop, iterate, count):
    seen = []

    def callback(*args):
        seen.append(args)

    loop.call_soon(callback, *range(count))
    iterate()
    assert seen == [tuple(range(count))]


def test_time_is_the_monotonic_clock(loop, iterate):
    """Also in a callback that has been busy for some time."""
    stamps = []

    def look_twice():
        for _ in range(2):
            stamps.append((time.monotonic(), loop.time(), time.monotonic()))
            while time.monotonic() < stamps[-1][-1] + 0.005:
                pass

    look_twice()
    loop.call_soon(look_twice)
    iterate()
    assert len(stamps) == 4
    for before, now, after in stamps:
        assert isinstance(now, float)
        assert before - 0.001 <= now <= after + 0.001
