"""Handles' private attributes can be set, and what is set takes effect.

Tracers wrap a handle's callback.
"""

import contextvars
import gc
import weakref

import pytest

variable = contextvars.ContextVar("variable", default="none")

WAYS = ["call_soon", "call_soon_threadsafe", "call_at"]


def schedule(loop, way, callback, *args, **keywords):
    first = (0,) if way == "call_at" else ()
    return getattr(loop, way)(*first, callback, *args, **keywords)


def run_until(loop, seen, count):
    """Run iterations until so many have come, 100 at most."""
    left = 100

    def look():
        nonlocal left
        left -= 1
        if len(seen) < count and left:
            loop.call_soon(look)
        else:
            loop.stop()

    loop.call_soon(look)
    loop.run_forever()


@pytest.fixture(params=[False, True], ids=["plain", "debug"])
def any_loop(request, loop):
    loop.set_debug(request.param)
    return loop


def traced(plain):
    def traced(*args):
        plain("traced", *args)

    return traced


def another_context(_):
    context = contextvars.copy_context()
    context.run(variable.set, "another")
    return context


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize(
    ("name", "make", "expected"),
    [
        ("_callback", traced, (("traced", "x"), "none")),
        ("_args", lambda _: ["y"], (("y",), "none")),
        ("_args", lambda _: (), ((), "none")),
        ("_args", lambda _: iter("y"), (("y",), "none")),
        ("_context", another_context, (("x",), "another")),
    ],
)
def test_what_is_set_runs(any_loop, way, name, make, expected):
    seen = []

    def callback(*args):
        seen.append((args, variable.get()))

    handle = schedule(any_loop, way, callback, "x")
    value = make(callback)
    setattr(handle, name, value)
    assert getattr(handle, name) is value
    if name == "_callback":
        assert "traced" in repr(handle)
    run_until(any_loop, seen, 1)
    assert seen == [expected]


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("value", [True, "yes"])
def test_a_handle_whose_cancelled_attribute_is_true_is_not_run(
    any_loop, way, value
):
    seen = []
    handle = schedule(any_loop, way, seen.append, "x")
    handle._cancelled = value
    assert handle.cancelled()
    schedule(any_loop, way, seen.append, "y")
    run_until(any_loop, seen, 1)
    assert seen == ["y"]


@pytest.mark.parametrize("way", WAYS)
def test_a_handle_whose_cancelled_attribute_is_false_again_runs(loop, way):
    seen = []
    handle = schedule(loop, way, seen.append, "x")
    handle._cancelled = True
    handle._cancelled = 0
    assert not handle.cancelled()
    run_until(loop, seen, 1)
    assert seen == ["x"]


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize(
    ("name", "value", "error"),
    [
        ("_callback", None, TypeError),
        ("_args", None, TypeError),
        ("_context", 5, AttributeError),
    ],
)
def test_an_uncallable_callback_is_reported(
    any_loop, reports, way, name, value, error
):
    handle = schedule(any_loop, way, print)
    setattr(handle, name, value)
    run_until(any_loop, reports, 1)
    (report,) = reports
    assert type(report["exception"]) is error
    assert report["handle"] is handle


class Referent:
    """An object that can have weak references."""

    def __init__(self, handle=None):
        self.handle = handle

    def __call__(self):
        pass


@pytest.mark.parametrize("way", WAYS)
def test_a_cancelled_handle_releases_the_callback_set_since(any_loop, way):
    released = []
    for _ in range(2):  # the second may be a reused object
        callback, argument = Referent(), Referent()
        released += [weakref.ref(callback), weakref.ref(argument)]
        handle = schedule(any_loop, way, print)
        handle.cancel()
        handle._callback = callback
        handle._args = (argument,)
        del handle, callback, argument
    run_until(any_loop, [], 0)
    gc.collect()
    assert [ref() for ref in released] == [None] * 4


@pytest.mark.parametrize("name", ["_cancelled", "_args"])
@pytest.mark.parametrize("way", WAYS)
def test_a_cycle_by_an_attribute_that_was_set_is_collected(
    any_loop, way, name
):
    handle = schedule(any_loop, way, print)
    handle.cancel()
    value = Referent(handle)
    released = weakref.ref(value)
    setattr(handle, name, value)
    del handle, value
    run_until(any_loop, [], 0)
    gc.collect()
    assert released() is None
