"""Context variables through every way of scheduling a callback."""

import asyncio
import contextvars
import signal
import socket

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
    """Run turns until ``seen`` has grown to ``count``."""
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


@every
def test_context_none_means_a_copy(loop, schedule):
    seen = []
    schedule(loop, lambda: seen.append(VAR.get()), context=None)
    wait(loop, seen)
    assert seen == ["outside"]


def test_changes_do_not_leak_between_callbacks(loop, turn):
    seen = []

    def callback(value):
        seen.append(VAR.get())
        VAR.set(value)

    for number in range(10):
        loop.call_soon(callback, number)
    turn()
    assert seen == ["outside"] * 10
    assert VAR.get() == "outside"


def test_one_context_for_many_callbacks(loop, turn):
    context = contextvars.copy_context()
    seen = []

    def callback(value):
        seen.append(VAR.get())
        VAR.set(value)

    for number in range(5):
        loop.call_soon(callback, number, context=context)
    turn()
    assert seen == ["outside", 0, 1, 2, 3]


def test_scheduling_inherits_along_a_chain(loop, turn):
    seen = []

    def step(left):
        seen.append(VAR.get())
        VAR.set(left)
        if left:
            loop.call_soon(step, left - 1)

    loop.call_soon(step, 3)
    turn(5)
    assert seen == ["outside", 3, 2, 1]


def test_an_entered_context_is_an_error(loop, turn, reports, caplog):
    context = contextvars.copy_context()
    seen = []

    def inside():
        loop.call_soon(seen.append, 1, context=context)
        turn()

    context.run(inside)
    assert seen == []
    # From 3.12 the exception handler would enter it too, and fails.
    reported = [str(c["exception"]) for c in reports]
    logged = [r.getMessage() for r in caplog.records]
    assert "already entered" in "".join(reported + logged)


@pytest.mark.parametrize("bad", [1, "context", object()])
def test_a_bad_context_does_not_run(loop, turn, reports, bad):
    seen = []
    try:
        loop.call_soon(seen.append, 1, context=bad)
        turn()
    except (TypeError, AttributeError):
        pass
    else:
        assert isinstance(reports[0]["exception"], (TypeError, AttributeError))
    assert seen == []


def test_exception_leaves_the_context(loop, turn, reports):
    context = contextvars.copy_context()

    def fail():
        VAR.set("failed")
        raise ZeroDivisionError

    loop.call_soon(fail, context=context)
    turn()
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


def test_add_reader_keeps_the_context_of_the_call(loop):
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


def test_signal_handler_keeps_the_context_of_the_call(loop):
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


def test_tasks_have_their_own_copy(run):
    async def child(name):
        VAR.set(name)
        await asyncio.sleep(0)
        return VAR.get()

    async def main():
        VAR.set("main")
        results = await asyncio.gather(child("a"), child("b"))
        assert results == ["a", "b"]
        assert VAR.get() == "main"

    run(main())
    assert VAR.get() == "outside"


def test_future_callbacks_run_in_the_context_of_their_registration(loop, turn):
    future = loop.create_future()
    seen = []
    token = VAR.set("registered")
    future.add_done_callback(lambda _: seen.append(VAR.get()))
    VAR.reset(token)
    future.set_result(None)
    turn()
    assert seen == ["registered"]


async def test_to_thread_carries_the_context():
    VAR.set("caller")
    assert await asyncio.to_thread(VAR.get) == "caller"


async def test_run_in_executor_does_not():
    VAR.set("caller")
    loop = asyncio.get_running_loop()
    assert await loop.run_in_executor(None, VAR.get) == "outside"


def test_timeout_callback_runs_in_its_tasks_context(run):
    async def main():
        VAR.set("main")
        try:
            async with asyncio.timeout(0.001):
                await asyncio.sleep(100)
        except TimeoutError:
            return VAR.get()

    assert run(main()) == "main"
