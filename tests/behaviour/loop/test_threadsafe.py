"""call_soon_threadsafe and what else may come from outside the loop."""

import faulthandler
import functools
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
