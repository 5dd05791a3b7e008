"""call_soon_threadsafe and what else may come from outside the loop."""

import faulthandler
import functools
import sys
import threading

import pytest
from patience import PATIENCE


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


# -- two threads run or close one loop: the wrong one gets an error ---------

ROUNDS = 50

marks_itself_late = pytest.mark.asyncio_needs_gil(
    "its own loop looks first and marks itself later"
)


def race(one, other):
    """What two calls made at once raised, in no order."""
    barrier = threading.Barrier(2, timeout=PATIENCE)
    raised: list[BaseException] = []

    def call(function):
        barrier.wait()
        try:
            function()
        except RuntimeError as exc:
            raised.append(exc)

    thread = threading.Thread(target=call, args=(other,))
    thread.start()
    call(one)
    thread.join(PATIENCE)
    assert not thread.is_alive()
    return [str(exc) for exc in raised]


@marks_itself_late
def test_two_threads_run_one_loop(loop_factory, loop_kind):
    loop = loop_factory()
    hooks = sys.get_asyncgen_hooks()

    def run():
        try:
            loop.run_forever()
        except RuntimeError:
            loop.call_soon_threadsafe(loop.stop)
            raise

    for _ in range(ROUNDS):
        assert race(run, run) == ["This event loop is already running"]
        assert not loop.is_running()
    loop.close()
    if loop_kind == "asyncio":  # keeps the wrong thread's if both run at once
        sys.set_asyncgen_hooks(*hooks)


def test_two_threads_run_and_close_one_loop(loop_factory, loop_kind):
    if loop_kind == "asyncio":
        pytest.skip("asyncio's own loop hangs, or leaks its selector")
    for _ in range(ROUNDS):
        loop = loop_factory()

        def close(loop=loop):
            try:
                loop.close()
            except RuntimeError:
                loop.call_soon_threadsafe(loop.stop)
                raise

        (said,) = race(close, loop.run_forever)
        assert said in (
            "Cannot close a running event loop",
            "Event loop is closed",
        )
        loop.close()
