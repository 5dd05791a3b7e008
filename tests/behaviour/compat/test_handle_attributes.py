"""Handles' private attributes can be set, and what is set takes effect.

Tracers wrap a handle's callback.
"""

import contextvars

import pytest
from loop_helpers import every_scheduler

variable = contextvars.ContextVar("variable", default="none")


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


@every_scheduler
@pytest.mark.parametrize(
    ("name", "change", "expected"),
    [
        ("_callback", traced, (("traced", "x"), "none")),
        ("_args", lambda _: ["y"], (("y",), "none")),
        ("_args", lambda _: (), ((), "none")),
        ("_args", lambda _: iter("y"), (("y",), "none")),
        ("_context", another_context, (("x",), "another")),
    ],
)
def test_an_attribute_that_is_set_takes_effect(
    any_loop, iterate, make, name, change, expected
):
    seen = []

    def callback(*args):
        seen.append((args, variable.get()))

    handle = make(any_loop, callback, "x")
    value = change(callback)
    setattr(handle, name, value)
    assert getattr(handle, name) is value
    if name == "_callback":
        assert "traced" in repr(handle)
    del handle  # the last reference is the queue's
    iterate(3)
    assert seen == [expected]


@every_scheduler
@pytest.mark.parametrize(
    ("name", "value"), [("_callback", None), ("_args", None), ("_context", 5)]
)
def test_an_uncallable_callback_is_reported(
    any_loop, iterate, reports, make, name, value
):
    """asyncio calls the run() of any context."""
    handle = make(any_loop, print)
    setattr(handle, name, value)
    iterate(3)
    (report,) = reports
    assert type(report["exception"]) in (TypeError, AttributeError)
    assert report["handle"] is handle


def test_a_cancelled_handle_keeps_its_context(loop):
    context = contextvars.copy_context()
    handle = loop.call_soon(print, context=context)
    handle.cancel()
    assert handle._context is context
    assert handle._callback is None
