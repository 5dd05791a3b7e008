"""call_soon and what an iteration of the loop does with ready callbacks."""

import asyncio
import functools
import gc
import sys
import time
import weakref

import pytest


@pytest.mark.parametrize("count", [0, 1, 2, 3, 4, 5, 8, 20, 255])
def test_any_number_of_arguments(loop, iterate, count):
    seen = []

    def callback(*args):
        seen.append(args)

    loop.call_soon(callback, *range(count))
    iterate()
    assert seen == [tuple(range(count))]


class Appender:
    def __init__(self, seen):
        self.seen = seen

    def __call__(self):
        self.seen.append(7)

    method = __call__


@pytest.mark.parametrize(
    "make",
    [
        lambda seen: functools.partial(seen.append, 7),
        lambda seen: lambda: seen.append(7),
        lambda seen: functools.partial(functools.partial(seen.append), 7),
        lambda seen: Appender(seen),
        lambda seen: Appender(seen).method,
    ],
    ids=["partial", "lambda", "nested", "instance", "method"],
)
def test_every_kind_of_callable(loop, iterate, make):
    seen = []
    loop.call_soon(make(seen))
    iterate()
    assert seen == [7]


def test_keyword_arguments_are_refused(loop):
    with pytest.raises(TypeError):
        loop.call_soon(print, end="")
    with pytest.raises(TypeError):
        loop.call_later(0, print, end="")
    with pytest.raises(TypeError):
        loop.call_at(0, print, end="")
    with pytest.raises(TypeError):
        loop.call_soon_threadsafe(print, end="")


def test_missing_arguments_are_refused(loop):
    for method, count in (
        (loop.call_soon, 0),
        (loop.call_soon_threadsafe, 0),
        (loop.call_later, 1),
        (loop.call_at, 1),
    ):
        with pytest.raises(TypeError):
            method(*[0] * count)


def test_callback_and_context_by_keyword(loop, iterate):
    seen = []
    loop.call_soon(callback=lambda: seen.append(1))
    loop.call_later(delay=0, callback=lambda: seen.append(2))
    loop.call_at(when=0, callback=lambda: seen.append(3))
    loop.call_soon_threadsafe(callback=lambda: seen.append(4))
    iterate(2)
    assert sorted(seen) == [1, 2, 3, 4]


def test_callback_is_released_after_it_ran(loop, iterate):
    class Token:
        pass

    def callback(token):
        pass

    token = Token()
    alive = weakref.ref(token)
    loop.call_soon(callback, token)
    del token
    gc.collect()
    assert alive() is not None
    iterate()
    gc.collect()
    assert alive() is None


def test_pending_callbacks_are_released_by_close(loop_factory):
    class Token:
        pass

    loop = loop_factory()
    token = Token()
    alive = weakref.ref(token)
    loop.call_soon(print, token)
    loop.call_later(1000, print, token)
    loop.call_soon_threadsafe(print, token)
    del token
    loop.close()
    gc.collect()
    assert alive() is None


def test_reference_counts_stay_level(loop, iterate):
    def callback(a, b, c):
        pass

    value = object()
    iterate()
    before = sys.getrefcount(value)
    for _ in range(50):
        loop.call_soon(callback, value, value, value)
        loop.call_soon_threadsafe(callback, value, value, value)
        loop.call_later(0, callback, value, value, value)
        loop.call_later(100, callback, value, value, value).cancel()
    iterate(3)
    assert sys.getrefcount(value) - before < 5


def test_time_is_the_monotonic_clock(loop):
    before = time.monotonic()
    now = loop.time()
    after = time.monotonic()
    assert isinstance(now, float)
    assert before - 0.001 <= now <= after + 0.001


def test_time_advances_within_an_iteration(loop, iterate):
    stamps = []

    def callback():
        stamps.append(loop.time())
        end = time.monotonic() + 0.005
        while time.monotonic() < end:
            pass
        stamps.append(loop.time())

    loop.call_soon(callback)
    iterate()
    assert stamps[1] - stamps[0] >= 0.0049


def test_is_running_only_while_running(loop, iterate):
    seen = []
    assert not loop.is_running()
    loop.call_soon(lambda: seen.append(loop.is_running()))
    iterate()
    assert seen == [True]
    assert not loop.is_running()


def test_running_loop_is_set_only_while_running(loop, iterate):
    seen = []
    loop.call_soon(lambda: seen.append(asyncio.get_running_loop()))
    loop.call_soon(lambda: seen.append(asyncio.get_event_loop()))
    iterate()
    assert seen == [loop, loop]
    with pytest.raises(RuntimeError):
        asyncio.get_running_loop()


def test_repr_shows_the_state(loop_factory):
    loop = loop_factory()
    assert "running=False" in repr(loop)
    assert "closed=False" in repr(loop)
    seen = []
    loop.call_soon(lambda: seen.append(repr(loop)))
    loop.call_soon(loop.stop)
    loop.run_forever()
    assert "running=True" in seen[0]
    assert "debug=False" in repr(loop)
    loop.set_debug(True)
    assert "debug=True" in repr(loop)
    loop.close()
    assert "closed=True" in repr(loop)


def test_weak_references_to_a_loop(loop_factory):
    loop = loop_factory()
    alive = weakref.ref(loop)
    assert alive() is loop
    loop.close()
    del loop
    gc.collect()
    assert alive() is None


def test_a_callback_that_dies_with_its_only_reference(loop, iterate):
    class Killer:
        def __init__(self, seen):
            self.seen = seen

        def __del__(self):
            self.seen.append("dead")

        def run(self):
            self.seen.append("ran")

    seen = []
    loop.call_soon(Killer(seen).run)
    iterate()
    gc.collect()
    assert seen == ["ran", "dead"]


def test_del_of_an_argument_may_schedule(loop, iterate):
    class Scheduler:
        def __del__(self):
            for number in range(100):
                loop.call_soon(seen.append, number)

    seen = []
    loop.call_soon(lambda token: None, Scheduler())
    iterate()
    gc.collect()
    iterate()
    assert seen == list(range(100))
