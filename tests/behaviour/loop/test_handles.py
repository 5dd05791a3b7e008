"""Handle and TimerHandle objects, kept, dropped, cancelled or outliving."""

import asyncio
import contextvars
import functools
import gc
import sys
import threading
import weakref
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

import pytest
from patience import PATIENCE

VAR = contextvars.ContextVar("VAR", default="outside")

MAKERS = {
    "soon": lambda loop, *call: loop.call_soon(*call),
    "later": lambda loop, *call: loop.call_later(0, *call),
    "at": lambda loop, *call: loop.call_at(loop.time(), *call),
    "threadsafe": lambda loop, *call: loop.call_soon_threadsafe(*call),
}
FAR = {
    "later": lambda loop, *call: loop.call_later(1000, *call),
    "at": lambda loop, *call: loop.call_at(loop.time() + 1000, *call),
}
every_maker = pytest.mark.parametrize("make", MAKERS.values(), ids=MAKERS)
every_timer = pytest.mark.parametrize("make", FAR.values(), ids=FAR)


def nothing(*args):
    pass


def test_only_timers_are_timer_handles(loop, iterate):
    for make in (MAKERS["soon"], MAKERS["threadsafe"]):
        handle = make(loop, nothing)
        assert isinstance(handle, asyncio.Handle)
        assert not isinstance(handle, asyncio.TimerHandle)
    for make in (MAKERS["later"], MAKERS["at"]):
        assert isinstance(make(loop, nothing), asyncio.TimerHandle)
    iterate(2)


@every_maker
def test_cancelled_callback_does_not_run(loop, iterate, make):
    seen = []
    handle = make(loop, seen.append, 1)
    assert handle.cancelled() is False
    assert handle.cancel() is None
    assert handle.cancelled() is True
    iterate(3)
    assert seen == []


@every_maker
def test_cancel_twice_and_after_the_run(loop, iterate, make):
    seen = []
    handle = make(loop, seen.append, 1)
    iterate(3)
    assert handle.cancelled() is False
    handle.cancel()
    handle.cancel()
    assert handle.cancelled() is True
    assert seen == [1]


@every_maker
def test_cancel_from_inside_itself(loop, iterate, make):
    seen = []

    class Token:
        pass

    def callback(token):
        held[0].cancel()
        held.clear()
        gc.collect()
        seen.append(token)

    token = Token()
    held = [make(loop, callback, token)]
    iterate(3)
    assert seen == [token]


@every_maker
def test_cancel_by_an_earlier_callback_of_the_iteration(loop, iterate, make):
    seen = []
    held = []
    loop.call_soon(lambda: held[0].cancel())
    held.append(make(loop, seen.append, 1))
    iterate(3)
    assert seen == []
    assert held[0].cancelled()


@every_maker
def test_cancel_drops_callback_and_arguments(loop, make):
    class Token:
        pass

    token = Token()
    alive = weakref.ref(token)
    handle = make(loop, nothing, token)
    del token
    handle.cancel()
    gc.collect()
    assert alive() is None
    assert handle._callback is None
    assert handle._args is None


@every_maker
def test_introspection_before_the_run(loop, iterate, make):
    context = contextvars.copy_context()

    def callback(*args):
        pass

    handle = make(loop, callback, 1, "two", None)
    assert handle._callback is callback
    assert tuple(handle._args) == (1, "two", None)
    assert handle._loop is loop
    assert isinstance(handle._context, contextvars.Context)
    assert handle._cancelled is False
    own = loop.call_soon(callback, context=context)
    assert own._context is context
    iterate(3)


@every_maker
def test_introspection_after_the_run(loop, iterate, make):
    def callback(*args):
        inside.append((handle._callback, tuple(handle._args)))

    inside = []
    handle = make(loop, callback, 1, 2)
    iterate(3)
    assert inside == [(callback, (1, 2))]
    assert handle._callback is callback
    assert tuple(handle._args) == (1, 2)
    assert handle._loop is loop


@pytest.mark.skipif(
    sys.version_info < (3, 12), reason="get_context is new in 3.12"
)
@every_maker
def test_get_context(loop, iterate, make):
    handle = make(loop, nothing)
    assert isinstance(handle.get_context(), contextvars.Context)
    context = contextvars.copy_context()
    given = loop.call_soon(nothing, context=context)
    timed = loop.call_later(0, nothing, context=context)
    assert given.get_context() is context
    assert timed.get_context() is context
    iterate(3)
    assert given.get_context() is context


@every_maker
def test_weak_references(loop, iterate, make):
    handle = make(loop, nothing)
    alive = weakref.ref(handle)
    assert alive() is handle
    iterate(3)
    del handle
    gc.collect()
    assert alive() is None


def test_weak_reference_dies_with_a_dropped_handle(loop, iterate):
    gone = []
    handle = loop.call_soon(nothing)
    alive = weakref.ref(handle, gone.append)
    iterate()
    handle = None
    gc.collect()
    assert gone == [alive]
    # A new handle, even at the same address, is another one.
    fresh = loop.call_soon(nothing)
    assert alive() is None
    assert weakref.ref(fresh)() is fresh
    iterate()


@every_maker
def test_dropped_handle_runs_all_the_same(loop, iterate, make):
    seen = []
    for number in range(100):
        make(loop, seen.append, number)
    gc.collect()
    iterate(3)
    assert sorted(seen) == list(range(100))


def test_referenced_handles_do_not_change_when_others_are_made_and_freed(
    loop, iterate
):
    seen = []
    kept = [loop.call_soon(seen.append, n) for n in range(100)]
    for number in range(100, 200):
        loop.call_soon(seen.append, number)
    iterate()
    for _ in range(3):
        for number in range(200):
            loop.call_soon(nothing, number)
        iterate()
    assert seen == list(range(200))
    assert [tuple(h._args) for h in kept] == [(n,) for n in range(100)]
    assert not any(h.cancelled() for h in kept)


@every_maker
def test_cycle_through_a_handle_that_ran_is_collected(loop, iterate, make):
    class Owner:
        def start(self):
            self.handle = make(loop, self.run)

        def run(self):
            pass

    owner = Owner()
    owner.start()
    alive = weakref.ref(owner)
    iterate(3)
    del owner
    gc.collect()
    assert alive() is None


@every_timer
def test_cycle_through_a_cancelled_timer_is_collected(loop, make):
    class Owner:
        def start(self):
            self.handle = make(loop, self.run)

        def run(self):
            pass

    owner = Owner()
    owner.start()
    alive = weakref.ref(owner)
    owner.handle.cancel()
    del owner
    gc.collect()
    assert alive() is None


#: The stack of a thread: enough for as many nested deallocators as 3.13
#: allows, too small for those of a chain of so many objects.
STACK_BYTES = 1 << 21
LINKS = 50_000


@pytest.fixture
def on_small_stack() -> Callable[[Callable[[], None]], None]:
    """Return a function that runs another one in a thread of STACK_BYTES."""

    def run(target: Callable[[], None]) -> None:
        before = threading.stack_size(STACK_BYTES)
        try:
            with ThreadPoolExecutor(1) as pool:
                pool.submit(target).result(PATIENCE)
        finally:
            threading.stack_size(before)

    return run


@pytest.mark.no_refcount
@pytest.mark.parametrize("name", ["_callback", "_args", "_context"])
@every_maker
def test_a_long_chain_of_handles_is_freed(
    loop_factory, on_small_stack, make, name
):
    """Each one refers to the one before, by an attribute that may be set."""

    @on_small_stack
    def make_and_free():
        loop = loop_factory()
        last = nothing
        for _ in range(LINKS):
            handle = make(loop, nothing)
            setattr(handle, name, last)
            last = handle
        alive = weakref.ref(last)
        loop.close()
        del handle, last
        gc.collect()
        assert alive() is None


@pytest.mark.no_refcount
@pytest.mark.parametrize("wrap", [functools.partial, staticmethod])
@every_maker
def test_a_long_chain_of_handles_in_wrappers_is_freed(
    loop_factory, on_small_stack, make, wrap
):
    """Of methods of handles in objects that have no trashcan."""

    @on_small_stack
    def make_and_free():
        loop = loop_factory()
        handle = make(loop, nothing)
        for _ in range(LINKS):
            handle = make(loop, wrap(handle._run))
        alive = weakref.ref(handle)
        loop.close()
        del handle
        gc.collect()
        assert alive() is None


@every_maker
def test_handle_outlives_its_loop(loop_factory, make):
    loop = loop_factory()
    token = object()
    handle = make(loop, nothing, token)
    ran = loop.call_soon(nothing, token)
    loop.call_soon(loop.stop)
    loop.run_forever()
    late = loop.call_soon(nothing, token)
    far = loop.call_later(1000, nothing, token)
    loop.close()
    del loop
    gc.collect()
    for each in (handle, ran, late, far):
        assert repr(each)
        each.cancel()
        assert each.cancelled()
        assert each._loop.is_closed()


def test_cancel_of_a_timer_after_close(loop_factory):
    loop = loop_factory()
    handles = [loop.call_later(n, nothing) for n in range(10)]
    loop.close()
    for handle in reversed(handles):
        handle.cancel()
        assert handle.cancelled()
        assert handle.when() > 0


def test_cycle_of_loop_and_handles_is_collected(loop_factory):
    loop = loop_factory()
    loop.close()
    loop.mine = loop.__class__()
    inner = loop.mine
    inner.call_soon(nothing, inner)
    inner.kept = inner.call_later(100, nothing, inner)
    inner.close()
    alive = weakref.ref(inner)
    del loop, inner
    gc.collect()
    assert alive() is None


def test_handles_hash_by_identity(loop, iterate):
    first, second = loop.call_soon(nothing), loop.call_soon(nothing)
    assert first != second
    assert first == first
    assert len({first, second, first}) == 2
    iterate()


def test_timer_handles_order_by_when(loop):
    handles = [loop.call_at(1e9 + n, nothing) for n in (3, 1, 2)]
    one, two, three = sorted(handles)
    assert (one.when(), two.when(), three.when()) == (
        1e9 + 1,
        1e9 + 2,
        1e9 + 3,
    )
    assert one < two <= three
    assert three > two >= one
    assert one <= one
    assert one >= one
    assert not one < one
    for handle in handles:
        handle.cancel()


def test_timer_handles_equality_and_hash(loop):
    first = loop.call_at(1e9, nothing)
    second = loop.call_at(1e9, nothing)
    other = loop.call_at(1e9, print)
    assert first == second
    assert first != other
    assert hash(first) == hash(second) == hash(1e9)
    assert first != 1e9
    assert (first == object()) is False
    with pytest.raises(TypeError):
        first < 1e9  # noqa: B015
    for handle in (first, second, other):
        handle.cancel()


def test_timer_handle_compares_with_one_made_by_hand(loop):
    ours = loop.call_at(1e9, nothing)
    theirs = asyncio.TimerHandle(1e9 + 1, nothing, (), loop)
    assert ours < theirs
    assert theirs > ours
    assert ours != theirs
    ours.cancel()


@every_timer
def test_when_stays_after_cancel(loop, make):
    handle = make(loop, nothing)
    when = handle.when()
    handle.cancel()
    assert handle.when() == when


def test_when_is_near_the_time_that_call_later_requested(loop):
    before = loop.time()
    handle = loop.call_later(50, nothing)
    after = loop.time()
    assert before + 50 - 1e-6 <= handle.when() <= after + 50 + 1e-6
    handle.cancel()


def test_repr_names_callback_and_arguments(loop, iterate):
    handle = loop.call_soon(nothing, 1, "two")
    # Which versions show the arguments is asyncio's business.
    own = asyncio.Handle(nothing, (1, "two"), loop)
    assert repr(handle) == repr(own)
    assert repr(handle).startswith("<Handle nothing(")
    assert "test_handles.py:" in repr(handle)
    iterate()


def test_repr_of_cancelled_handles(loop, iterate):
    handle = loop.call_soon(nothing)
    handle.cancel()
    assert repr(handle) == "<Handle cancelled>"
    timer = loop.call_at(1e9, nothing)
    assert repr(timer).startswith("<TimerHandle when=1000000000.0 nothing()")
    timer.cancel()
    assert repr(timer) == "<TimerHandle cancelled when=1000000000.0>"
    iterate()


def test_handle_in_a_report_when_it_was_dropped(loop, iterate, reports):
    def fail(value):
        raise ZeroDivisionError

    loop.call_soon(fail, 17)
    iterate()
    handle = reports[0]["handle"]
    assert isinstance(handle, asyncio.Handle)
    assert handle._callback is fail
    assert tuple(handle._args) == (17,)
    assert repr(handle) == repr(asyncio.Handle(fail, (17,), loop))


@pytest.mark.parametrize("delay", [None, 1000])
def test_a_handle_cannot_lose_its_loop(loop, loop_kind, delay):
    """asyncio's fails at the next cancel(); ours is part of its loop."""
    handle = (
        loop.call_soon(nothing)
        if delay is None
        else loop.call_later(delay, nothing)
    )
    assert handle._loop is loop
    if loop_kind == "fastloop":
        with pytest.raises(AttributeError):
            handle._loop = None
        with pytest.raises(AttributeError):
            del handle._loop
    handle.cancel()
    assert handle.cancelled()
