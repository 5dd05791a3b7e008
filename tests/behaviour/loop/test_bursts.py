"""Many thousands of callbacks that wait in one iteration of the loop."""

import contextvars
import gc

import pytest

#: More than any piece of a queue holds that grows bit by bit.
MANY = 20_000

name = contextvars.ContextVar("name", default="nothing")


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


def test_a_burst_shows_in_ready(loop, iterate):
    seen = []
    for number in range(MANY):
        loop.call_soon(seen.append, number)
    waiting = list(loop._ready)
    assert [handle._args for handle in waiting] == [(n,) for n in range(MANY)]
    waiting[5000].cancel()
    iterate()
    assert seen == [n for n in range(MANY) if n != 5000]


class Value:
    """A callback, or what a context holds; it counts those that live."""

    alive = 0

    def __init__(self):
        Value.alive += 1

    def __del__(self):
        Value.alive -= 1

    def __call__(self):
        raise AssertionError("not run")


def test_a_closed_loop_drops_a_burst(loop_factory):
    loop = loop_factory()
    for _ in range(MANY):
        loop.call_soon(Value())
    loop.close()
    gc.collect()
    assert Value.alive == 0


def test_values_end_with_the_burst_that_saw_them(loop, iterate):
    def schedule():
        name.set(Value())
        for _ in range(MANY):
            loop.call_soon(name.get)

    contextvars.copy_context().run(schedule)
    gc.collect()
    assert Value.alive == 1
    iterate()
    gc.collect()
    assert Value.alive == 0


# --- timers -----------------------------------------------------------------


def test_a_flood_of_timers_runs_in_order_of_time(loop):
    seen = []
    begin = loop.time()

    def schedule():
        loop.call_at(begin + 5, seen.append, "far").cancel()
        for number in range(MANY):
            when = begin - 1 + (number * 7919 % MANY) * 1e-6
            loop.call_at(when, seen.append, number * 7919 % MANY)
        loop.call_at(begin, loop.stop)

    loop.call_soon(schedule)
    loop.run_forever()
    assert seen == list(range(MANY))


def test_the_context_that_a_timer_shows_is_the_one_it_uses(loop):
    handles = [loop.call_later(0, name.set, number) for number in range(MANY)]
    contexts = [handle._context for handle in handles[::3]]
    assert len({id(context) for context in contexts}) == len(contexts)
    loop.call_later(0, loop.stop)
    loop.run_forever()
    assert [c[name] for c in contexts] == list(range(0, MANY, 3))
    assert handles[1]._context[name] == 1
