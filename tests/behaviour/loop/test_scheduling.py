"""call_soon and what an iteration of the loop does with ready callbacks."""

import contextvars
import time

import pytest

#: More than any piece of a queue holds that grows bit by bit.
MANY = 20_000

name = contextvars.ContextVar("name", default="nothing")


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


@pytest.mark.parametrize(
    "size", [1, 255, 256, 257, 1023, 1024, 1025, 4095, 4096, MANY]
)
def test_a_burst_may_grow_while_it_runs(loop, iterate, size):
    seen = []

    def twice(number):
        seen.append(number)
        loop.call_soon(seen.append, size + 2 * number)
        loop.call_soon(seen.append, size + 2 * number + 1)

    for number in range(size):
        loop.call_soon(twice, number)
    iterate(2)
    assert seen == list(range(3 * size))


def test_the_context_that_a_timer_shows_is_the_one_it_uses(loop):
    handles = [loop.call_later(0, name.set, number) for number in range(MANY)]
    contexts = [handle._context for handle in handles[::3]]
    assert len({id(context) for context in contexts}) == len(contexts)
    loop.call_later(0, loop.stop)
    loop.run_forever()
    assert [c[name] for c in contexts] == list(range(0, MANY, 3))
    assert handles[1]._context[name] == 1
