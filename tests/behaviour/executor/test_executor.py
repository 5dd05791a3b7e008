"""run_in_executor and to_thread, on the default pool and on the user's;
the default pool's end.
"""

import asyncio
import concurrent.futures
import sys
import threading
import time
from concurrent.futures.thread import BrokenThreadPool

import pytest
from patience import PATIENCE


def test_a_thread_runs_beside_a_loop_that_is_always_ready(loop):
    """It gets the GIL as often as it needs it, without a request for it."""

    def job():
        for _ in range(5):
            time.sleep(0.0001)

    async def main():
        future = loop.run_in_executor(None, job)
        end = time.monotonic() + PATIENCE
        while not future.done() and time.monotonic() < end:
            turn = time.monotonic() + 0.0002
            while time.monotonic() < turn:
                pass
            await asyncio.sleep(0)
        assert future.done()

    interval = sys.getswitchinterval()
    sys.setswitchinterval(1000)
    try:
        loop.run_until_complete(main())
    finally:
        sys.setswitchinterval(interval)


def test_stop_iteration_cannot_be_a_futures_exception(
    loop, run, pool, reports
):
    def job():
        raise StopIteration("from the thread")

    async def main():
        future = loop.run_in_executor(pool, job)
        done, _ = await asyncio.wait([future], timeout=0.2)
        if not done:
            # Up to 3.11 asyncio's future never ends: set_exception fails.
            future.cancel()
            return RuntimeError
        return type(future.exception())

    kind = run(main())
    assert kind in (RuntimeError, TypeError)


def test_without_a_thread_the_call_is_refused_and_never_runs(
    loop, loop_kind, monkeypatch
):
    if loop_kind == "asyncio":
        pytest.skip("asyncio's pool runs it once it has a thread")
    ran = []

    def start(self):
        raise RuntimeError("can't start new thread")

    with monkeypatch.context() as patch:
        patch.setattr(threading.Thread, "start", start)
        with pytest.raises(RuntimeError, match="can't start new thread"):
            loop.run_in_executor(None, ran.append, 1)
    loop.run_until_complete(loop.run_in_executor(None, int))
    assert ran == []


class Gate:
    """A job that says when it has begun and ends when it is let go."""

    def __init__(self):
        self.begun = threading.Event()
        self.go = threading.Event()

    def __call__(self):
        self.thread = threading.current_thread()
        self.begun.set()
        assert self.go.wait(PATIENCE)


def test_shutdown_of_a_pool_can_cancel_waiting_jobs(loop):
    pool, gate, ran = concurrent.futures.ThreadPoolExecutor(1), Gate(), []
    first = loop.run_in_executor(pool, gate)
    assert gate.begun.wait(PATIENCE)
    second = loop.run_in_executor(pool, ran.append, 1)
    pool.shutdown(wait=False, cancel_futures=True)
    gate.go.set()
    with pytest.raises(asyncio.CancelledError):
        loop.run_until_complete(second)
    loop.run_until_complete(first)
    assert ran == []
    pool.shutdown()


def test_an_initializer_that_fails_fails_the_jobs_that_wait(loop):
    gate = Gate()

    def fail():
        gate()
        raise ZeroDivisionError

    with concurrent.futures.ThreadPoolExecutor(1, initializer=fail) as pool:
        first = loop.run_in_executor(pool, int)
        assert gate.begun.wait(PATIENCE)
        second = loop.run_in_executor(pool, int)
        gate.go.set()
        for future in first, second:
            with pytest.raises(BrokenThreadPool):
                loop.run_until_complete(future)
        with pytest.raises(BrokenThreadPool):
            loop.run_in_executor(pool, int)


def test_close_lets_work_in_flight_end(loop_factory):
    loop, gate = loop_factory(), Gate()
    loop.run_in_executor(None, gate)
    assert gate.begun.wait(PATIENCE)
    loop.close()
    gate.go.set()
    gate.thread.join(PATIENCE)
    assert not gate.thread.is_alive()
