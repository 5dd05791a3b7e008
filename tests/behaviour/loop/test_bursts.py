"""Many thousands of callbacks that wait in one iteration of the loop."""

import contextvars

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


# --- timers -----------------------------------------------------------------


def test_the_context_that_a_timer_shows_is_the_one_it_uses(loop):
    handles = [loop.call_later(0, name.set, number) for number in range(MANY)]
    contexts = [handle._context for handle in handles[::3]]
    assert len({id(context) for context in contexts}) == len(contexts)
    loop.call_later(0, loop.stop)
    loop.run_forever()
    assert [c[name] for c in contexts] == list(range(0, MANY, 3))
    assert handles[1]._context[name] == 1
