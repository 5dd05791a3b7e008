"""Many thousands of callbacks that wait in one iteration of the loop."""

import contextvars
import gc

#: More than any piece of a queue holds that grows bit by bit.
MANY = 20_000

name = contextvars.ContextVar("name", default="nothing")


def test_a_burst_may_grow_while_it_runs(loop, iterate):
    seen = []

    def twice(number):
        seen.append(number)
        loop.call_soon(seen.append, MANY + 2 * number)
        loop.call_soon(seen.append, MANY + 2 * number + 1)

    for number in range(MANY):
        loop.call_soon(twice, number)
    iterate(2)
    assert seen == list(range(3 * MANY))


def test_bursts_of_all_sizes_follow_each_other(loop, iterate):
    for size in (1, 255, 256, 257, 1023, 1024, 1025, 4095, 4096, 9000, 3):
        seen = []
        for number in range(size):
            loop.call_soon(seen.append, number)
        iterate()
        assert seen == list(range(size))


def test_a_burst_shows_in_ready(loop, iterate):
    seen = []
    for number in range(MANY):
        loop.call_soon(seen.append, number)
    waiting = list(loop._ready)
    assert [handle._args for handle in waiting] == [(n,) for n in range(MANY)]
    waiting[5000].cancel()
    iterate()
    assert seen == [n for n in range(MANY) if n != 5000]


def test_a_closed_loop_drops_a_burst(loop_factory):
    class Thing:
        alive = 0

        def __init__(self):
            Thing.alive += 1

        def __del__(self):
            Thing.alive -= 1

        def __call__(self):
            raise AssertionError("not run")

    loop = loop_factory()
    for _ in range(MANY):
        loop.call_soon(Thing())
    loop.close()
    gc.collect()
    assert Thing.alive == 0


# --- contexts ---------------------------------------------------------------


class Value:
    """What a context holds; it counts those that live."""

    alive = 0

    def __init__(self):
        Value.alive += 1

    def __del__(self):
        Value.alive -= 1


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


def test_timers_of_a_flood_are_cancelled_by_those_before(loop):
    seen = []
    handles = {}
    begin = loop.time() - 1

    def run(number):
        seen.append(number)
        if number < MANY // 2:
            handles[MANY - 1 - number].cancel()

    for number in range(MANY - 1, -1, -1):
        handles[number] = loop.call_at(begin + number * 1e-6, run, number)
    loop.call_at(begin + 1, loop.stop)
    loop.run_forever()
    assert seen == list(range(MANY // 2))


def test_the_context_that_a_timer_shows_is_the_one_it_uses(loop):
    handles = [loop.call_later(0, name.set, number) for number in range(MANY)]
    contexts = [handle._context for handle in handles[::3]]
    assert len({id(context) for context in contexts}) == len(contexts)
    loop.call_later(0, loop.stop)
    loop.run_forever()
    assert [c[name] for c in contexts] == list(range(0, MANY, 3))
    assert handles[1]._context[name] == 1


def test_gc_visits_the_context_that_is_being_copied(loop, iterate):
    """Before 3.12 any allocation may run the GC."""

    def schedule():
        name.set("scheduled")
        return [loop.call_later(3600, name.get) for _ in range(2000)]

    handles = contextvars.copy_context().run(schedule)
    last = handles.pop()
    for handle in handles:
        handle.cancel()
    del handle, handles
    iterate()
    # CPython takes new contexts from those that were freed, 255 at most.
    taken = [contextvars.copy_context() for _ in range(300)]

    def look(phase, info):
        gc.callbacks.remove(look)
        last._context.run(name.set, "looked at")

    threshold = gc.get_threshold()
    gc.callbacks.append(look)
    gc.set_threshold(1)
    try:
        context = last._context
    finally:
        gc.set_threshold(*threshold)
    gc.collect()
    assert context is last._context
    assert context[name] == "looked at"
    assert len(taken) == 300
    last.cancel()
    iterate()
