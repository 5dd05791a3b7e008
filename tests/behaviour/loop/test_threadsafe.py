"""call_soon_threadsafe and what else may come from outside the loop."""

import asyncio
import contextvars
import faulthandler
import functools
import gc
import signal
import threading

import pytest
from patience import PATIENCE


def test_runs_in_the_loops_thread(loop, in_thread):
    seen = []

    def callback():
        seen.append(threading.get_ident())
        loop.stop()

    in_thread(loop.call_soon_threadsafe, callback)
    loop.run_forever()
    assert seen == [threading.get_ident()]


def test_order_from_one_thread_is_preserved(loop, in_thread):
    seen = []

    def caller():
        for number in range(5000):
            loop.call_soon_threadsafe(seen.append, number)
        loop.call_soon_threadsafe(loop.stop)

    in_thread(caller)
    loop.run_forever()
    assert seen == list(range(5000))


def test_calls_between_runs_wait_for_the_next(loop, in_thread):
    seen = []
    in_thread(loop.call_soon_threadsafe, seen.append, 1).join()
    assert seen == []
    loop.run_until_complete(asyncio.sleep(0))
    assert seen == [1]


def test_one_wake_up_at_a_time(loop, in_thread):
    seen = []
    again = threading.Event()
    finished = threading.Event()

    def caller():
        for _ in range(200):
            loop.call_soon_threadsafe(seen.append, 1)
            loop.call_soon_threadsafe(again.set)
            assert again.wait(PATIENCE)
            again.clear()
        finished.set()
        loop.call_soon_threadsafe(loop.stop)

    in_thread(caller)
    loop.run_forever()
    assert finished.is_set()
    assert len(seen) == 200


def test_wake_up_while_the_loop_is_about_to_sleep(loop, in_thread):
    """Callbacks and wake-ups interleaved: none may be left asleep."""
    left = [2000]
    go = threading.Semaphore(0)

    def answer():
        left[0] -= 1
        if left[0]:
            go.release()
        else:
            loop.stop()

    def caller():
        for _ in range(2000):
            go.acquire()
            loop.call_soon_threadsafe(answer)

    go.release()
    in_thread(caller)
    loop.run_forever()
    assert left == [0]


def test_wake_ups_do_not_add_up(loop, loop_kind, iterate, in_thread):
    if loop_kind == "asyncio":
        pytest.skip("asyncio's wake-ups are bytes in a pipe")

    def wake():
        for _ in range(100):
            loop._write_to_self()

    loop.enable_metrics()
    for round_number in range(1, 4):
        wake()
        in_thread(wake).join()
        iterate()
        assert loop.metrics().callbacks <= 2 * round_number


def test_a_wake_up_of_a_callback_ends_the_next_wait(loop):
    seen = []
    loop.call_later(PATIENCE, seen.append, "timer")
    for _ in range(2):
        loop.call_soon(loop._write_to_self)
        loop.call_soon(seen.append, "callback")
        loop._run_once()
        loop._run_once()
    assert seen == ["callback"] * 2


def test_context_is_that_of_the_caller(loop, in_thread):
    var = contextvars.ContextVar("var", default=None)
    seen = []

    def caller():
        var.set("thread")
        loop.call_soon_threadsafe(lambda: seen.append(var.get()))
        loop.call_soon_threadsafe(loop.stop)

    in_thread(caller)
    loop.run_forever()
    assert seen == ["thread"]
    assert var.get() is None


def test_from_del(loop):
    class Last:
        def __del__(self):
            loop.call_soon_threadsafe(loop.stop)

    def drop():
        last = Last()
        last.me = last

    loop.call_soon(drop)
    loop.call_soon(gc.collect)
    loop.run_forever()


def test_from_a_signal_handler_while_asleep(loop):
    seen = []

    def handler(signum, frame):
        loop.call_soon_threadsafe(lambda: (seen.append(signum), loop.stop()))

    previous = signal.signal(signal.SIGUSR1, handler)
    killer = threading.Timer(
        0.02, signal.pthread_kill, (threading.get_ident(), signal.SIGUSR1)
    )
    try:
        loop.call_soon(killer.start)
        loop.run_forever()
    finally:
        signal.signal(signal.SIGUSR1, previous)
        killer.join()
    assert seen == [signal.SIGUSR1]


def test_from_a_signal_handler_in_a_callback(loop):
    seen = []

    def handler(signum, frame):
        for number in range(100):
            loop.call_soon_threadsafe(seen.append, number)
        loop.call_soon_threadsafe(loop.stop)

    previous = signal.signal(signal.SIGUSR1, handler)
    try:
        loop.call_soon(signal.raise_signal, signal.SIGUSR1)
        loop.run_forever()
    finally:
        signal.signal(signal.SIGUSR1, previous)
    assert seen == list(range(100))


def test_run_coroutine_threadsafe(loop, in_thread):
    seen = []

    async def double(value):
        await asyncio.sleep(0)
        return value * 2

    def caller():
        futures = [
            asyncio.run_coroutine_threadsafe(double(n), loop)
            for n in range(50)
        ]
        seen.extend(f.result(PATIENCE) for f in futures)
        loop.call_soon_threadsafe(loop.stop)

    in_thread(caller)
    loop.run_forever()
    assert seen == [n * 2 for n in range(50)]


def test_run_coroutine_threadsafe_exception_and_cancel(loop, in_thread):
    seen = []

    async def fail():
        raise ZeroDivisionError

    async def wait(entered, left):
        try:
            entered.set()
            await asyncio.sleep(1000)
        finally:
            left.set()

    def caller():
        future = asyncio.run_coroutine_threadsafe(fail(), loop)
        seen.append(type(future.exception(20)))
        entered, left = threading.Event(), threading.Event()
        future = asyncio.run_coroutine_threadsafe(wait(entered, left), loop)
        assert entered.wait(PATIENCE)
        seen.append(future.cancel())
        seen.append(left.wait(PATIENCE))
        loop.call_soon_threadsafe(loop.stop)

    in_thread(caller)
    loop.run_forever()
    assert seen == [ZeroDivisionError, True, True]


def test_callback_that_fails_is_reported(loop, in_thread, reports):
    def fail():
        raise ZeroDivisionError

    def caller():
        loop.call_soon_threadsafe(fail)
        loop.call_soon_threadsafe(loop.stop)

    in_thread(caller)
    loop.run_forever()
    (context,) = reports
    assert isinstance(context["exception"], ZeroDivisionError)
    assert isinstance(context["handle"], asyncio.Handle)


def test_handles_of_many_threads_can_be_cancelled(loop, in_thread):
    seen = []

    def caller():
        handles = [
            loop.call_soon_threadsafe(seen.append, n) for n in range(100)
        ]
        for handle in handles:
            handle.cancel()

    in_thread(caller).join()
    loop.run_until_complete(asyncio.sleep(0))
    assert seen == []


def test_a_busy_callback_without_bytecode_leaves_other_threads_the_gil(
    loop, in_thread
):
    lock = threading.Lock()
    lock.acquire()

    def stop():
        lock.acquire()
        loop.call_soon_threadsafe(loop.stop)

    thread = in_thread(stop)
    again = functools.partial(loop.call_soon)
    again.__setstate__((loop.call_soon, (again,), {}, None))
    loop.call_soon(again)
    loop.call_soon(lock.release)
    # Nothing but the process's end can end a run that keeps the GIL.
    faulthandler.dump_traceback_later(PATIENCE, exit=True)
    loop.run_forever()
    faulthandler.cancel_dump_traceback_later()
    thread.join()
    again.__setstate__((list, (), {}, None))  # end its reference to itself
