"""Handle and TimerHandle objects, kept, dropped, cancelled or outliving."""

import contextvars
import gc
import sys
import threading
import weakref
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

import pytest
from patience import PATIENCE

MAKERS = {
    "soon": lambda loop, *call: loop.call_soon(*call),
    "later": lambda loop, *call: loop.call_later(0, *call),
    "at": lambda loop, *call: loop.call_at(loop.time(), *call),
    "threadsafe": lambda loop, *call: loop.call_soon_threadsafe(*call),
}
every_maker = pytest.mark.parametrize("make", MAKERS.values(), ids=MAKERS)


def nothing(*args):
    pass


@pytest.mark.skipif(
    sys.version_info < (3, 12), reason="get_context is new in 3.12"
)
@every_maker
def test_get_context_returns_the_context_of_the_callback(loop, iterate, make):
    handle = make(loop, nothing)
    assert isinstance(handle.get_context(), contextvars.Context)
    context = contextvars.copy_context()
    given = loop.call_soon(nothing, context=context)
    timed = loop.call_later(0, nothing, context=context)
    assert given.get_context() is context
    assert timed.get_context() is context
    iterate(3)
    assert given.get_context() is context


@pytest.mark.parametrize("cancelled", [False, True])
@every_maker
def test_cycle_through_a_handle_is_collected(loop, iterate, make, cancelled):
    class Owner:
        def start(self):
            self.handle = make(loop, self.run)

        def run(self):
            pass

    owner = Owner()
    owner.start()
    alive = weakref.ref(owner)
    if cancelled:
        owner.handle.cancel()
    else:
        iterate(3)
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
@pytest.mark.parametrize("name", ["_callback", "_context"])
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
