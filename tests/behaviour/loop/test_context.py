"""Context variables through every way of scheduling a callback."""

import asyncio
import contextvars
import signal
import socket
import sys

import pytest
from loop_helpers import SCHEDULERS

VAR = contextvars.ContextVar("VAR", default="outside")


def wait(loop, seen, count=1):
    """Run iterations until ``seen`` has grown to ``count``."""
    while len(seen) < count:
        loop.run_until_complete(asyncio.sleep(0))


def add_signal_handler(loop, callback):
    def handler():
        callback()
        loop.remove_signal_handler(signal.SIGUSR1)

    loop.add_signal_handler(signal.SIGUSR1, handler)
    elsewhere = contextvars.Context()
    loop.call_soon(signal.raise_signal, signal.SIGUSR1, context=elsewhere)


def add_writer(loop, callback):
    left, right = socket.socketpair()

    def writable():
        callback()
        loop.remove_writer(left)
        left.close()
        right.close()

    loop.add_writer(left, writable)


def done_callback(loop, callback):
    """As many overrides of add_done_callback() pass their default on."""
    future = loop.create_future()
    future.add_done_callback(lambda _: callback(), context=None)
    future.set_result(None)


GIVEN = {
    **SCHEDULERS,
    "1 ms later": lambda loop, *call, **how: loop.call_later(
        0.001, *call, **how
    ),
}
WAYS = {
    **GIVEN,
    "signal handler": add_signal_handler,
    "writer": add_writer,
    "done callback, context=None": done_callback,
}


@pytest.mark.parametrize("schedule", WAYS.values(), ids=WAYS)
def test_the_current_context_is_copied(loop, schedule):
    seen = []
    token = VAR.set("before")
    try:
        schedule(loop, lambda: seen.append(VAR.get()))
        VAR.set("after")
        wait(loop, seen)
    finally:
        VAR.reset(token)
    assert seen == ["before"]


def test_an_entered_context_is_an_error(loop, iterate, reports, caplog):
    context = contextvars.copy_context()
    seen = []

    def inside():
        loop.call_soon(seen.append, 1, context=context)
        iterate()

    context.run(inside)
    assert seen == []
    # From 3.12 the exception handler would enter it too, and fails.
    reported = [str(c["exception"]) for c in reports]
    logged = [r.getMessage() for r in caplog.records]
    assert "already entered" in "".join(reported + logged)


async def test_run_in_executor_carries_no_context():
    """But a new thread does, by default where there is no GIL from 3.14 on."""
    inherits = getattr(sys.flags, "thread_inherit_context", False)
    VAR.set("caller")
    loop = asyncio.get_running_loop()
    expected = "caller" if inherits else "outside"
    assert await loop.run_in_executor(None, VAR.get) == expected


async def test_a_profiler_sees_that_a_task_waits():
    """pyinstrument charges the time to the await that it then has seen."""
    VAR.set("task")
    seen = set()
    sys.setprofile(lambda *_: seen.add(VAR.get()))
    try:
        await asyncio.sleep(0.05)  # more than a tick of the coarse clock
    finally:
        sys.setprofile(None)
    assert seen == {"task", "outside"}
