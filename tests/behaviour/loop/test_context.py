"""Context variables through every way of scheduling a callback."""

import asyncio
import contextvars
import signal
import socket
import sys

import pytest

VAR = contextvars.ContextVar("VAR", default="outside")

SCHEDULERS = {
    "call_soon": lambda lo, cb, **kw: lo.call_soon(cb, **kw),
    "call_later": lambda lo, cb, **kw: lo.call_later(0, cb, **kw),
    "call_later_ms": lambda lo, cb, **kw: lo.call_later(0.001, cb, **kw),
    "call_at": lambda lo, cb, **kw: lo.call_at(lo.time(), cb, **kw),
    "threadsafe": lambda lo, cb, **kw: lo.call_soon_threadsafe(cb, **kw),
}
every = pytest.mark.parametrize(
    "schedule", SCHEDULERS.values(), ids=SCHEDULERS
)


def wait(loop, seen, count=1):
    """Run iterations until ``seen`` has grown to ``count``."""
    while len(seen) < count:
        loop.run_until_complete(asyncio.sleep(0))


@every
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


@every
def test_a_given_context_is_used_itself(loop, schedule):
    context = contextvars.copy_context()
    context.run(VAR.set, "given")
    seen = []

    def callback():
        seen.append(VAR.get())
        VAR.set("changed")

    schedule(loop, callback, context=context)
    wait(loop, seen)
    assert seen == ["given"]
    assert context[VAR] == "changed"
    assert VAR.get() == "outside"


def test_one_context_for_many_callbacks(loop, iterate):
    context = contextvars.copy_context()
    seen = []

    def callback(value):
        seen.append(VAR.get())
        VAR.set(value)

    for number in range(5):
        loop.call_soon(callback, number, context=context)
    iterate()
    assert seen == ["outside", 0, 1, 2, 3]


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


@pytest.mark.parametrize("bad", [1, "context", object()])
def test_a_bad_context_does_not_run(loop, iterate, reports, bad):
    seen = []
    try:
        loop.call_soon(seen.append, 1, context=bad)
        iterate()
    except (TypeError, AttributeError):
        pass
    else:
        assert isinstance(reports[0]["exception"], (TypeError, AttributeError))
    assert seen == []


def test_exception_leaves_the_context(loop, iterate, reports):
    context = contextvars.copy_context()

    def fail():
        VAR.set("failed")
        raise ZeroDivisionError

    loop.call_soon(fail, context=context)
    iterate()
    assert VAR.get() == "outside"
    assert context[VAR] == "failed"
    assert context.run(VAR.get) == "failed"
    assert len(reports) == 1


def test_exit_exception_leaves_the_context(loop):
    context = contextvars.copy_context()

    def leave():
        VAR.set("left")
        raise SystemExit

    loop.call_soon(leave, context=context)
    with pytest.raises(SystemExit):
        loop.run_forever()
    assert VAR.get() == "outside"
    assert context.run(VAR.get) == "left"


def test_add_reader_callback_runs_in_the_context_of_the_call(loop):
    left, right = socket.socketpair()
    seen = []
    token = VAR.set("registered")
    loop.add_reader(left, lambda: (seen.append(VAR.get()), left.recv(1)))
    VAR.reset(token)
    right.send(b"x")
    wait(loop, seen)
    loop.remove_reader(left)
    left.close()
    right.close()
    assert seen == ["registered"]


def test_add_reader_runs_each_time_in_the_same_context(loop):
    left, right = socket.socketpair()
    seen = []

    def callback():
        left.recv(1)
        seen.append(VAR.get())
        VAR.set(len(seen))

    loop.add_reader(left, callback)
    right.send(b"xyz")
    wait(loop, seen, 3)
    loop.remove_reader(left)
    left.close()
    right.close()
    assert seen == ["outside", 1, 2]


def test_signal_handler_runs_in_the_context_of_the_call(loop):
    seen = []
    token = VAR.set("registered")
    loop.add_signal_handler(
        signal.SIGUSR1, lambda: (seen.append(VAR.get()), loop.stop())
    )
    VAR.reset(token)
    loop.call_soon(signal.raise_signal, signal.SIGUSR1)
    loop.run_forever()
    loop.remove_signal_handler(signal.SIGUSR1)
    assert seen == ["registered"]


async def test_to_thread_carries_the_context():
    VAR.set("caller")
    assert await asyncio.to_thread(VAR.get) == "caller"


async def test_run_in_executor_does_not():
    """But a new thread does, by default where there is no GIL from 3.14 on."""
    inherits = getattr(sys.flags, "thread_inherit_context", False)
    VAR.set("caller")
    loop = asyncio.get_running_loop()
    expected = "caller" if inherits else "outside"
    assert await loop.run_in_executor(None, VAR.get) == expected
