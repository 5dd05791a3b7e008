"""Handles' private attributes can be set, and what is set takes effect.

Tracers wrap a handle's callback.
"""

import contextvars

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
def test_an_attribute_that_is_set_takes_effect(
    any_loop, way, name, make, expected
):
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
