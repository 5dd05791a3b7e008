"""Callbacks whose C function breaks the rule of results and exceptions."""

import asyncio
import sys

import pytest

capi = pytest.importorskip("_testcapi")
pytestmark = pytest.mark.skipif(
    hasattr(sys, "gettotalrefcount"), reason="CPython ends the process then"
)
wrong = pytest.mark.parametrize(
    "function",
    [capi.return_null_without_error, capi.return_result_with_error],
)


SCHEDULERS = {
    "soon": lambda loop, function: loop.call_soon(function),
    "handle": lambda loop, function: setattr(
        loop, "kept", loop.call_soon(function)
    ),
    "threadsafe": lambda loop, function: loop.call_soon_threadsafe(function),
    "later": lambda loop, function: loop.call_later(0, function),
}


@wrong
@pytest.mark.reports
@pytest.mark.parametrize("schedule", SCHEDULERS.values(), ids=SCHEDULERS)
async def test_it_is_reported_and_the_next_callback_runs(
    loop, reports, schedule, function
):
    schedule(loop, function)
    done = loop.create_future()
    loop.call_later(0.001, done.set_result, None)
    await done
    (report,) = reports
    assert type(report["exception"]) is SystemError


@pytest.mark.reports
async def test_a_callback_with_many_arguments(loop, reports):
    """Its arguments are passed by a tuple."""

    class Wrong:
        def __init__(self):
            self.got = ()

        def __call__(self, *args):
            self.got = args
            raise ValueError

    wrong = Wrong()
    loop.call_soon(wrong, *range(9))
    await asyncio.sleep(0)
    assert wrong.got == tuple(range(9))
    (report,) = reports
    assert type(report["exception"]) is ValueError
