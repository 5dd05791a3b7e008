"""run_in_executor and to_thread, on the default pool and on the user's;
the default pool's end.
"""

import asyncio
import concurrent.futures
import multiprocessing
import os
import sys
import threading

import pytest
from patience import PATIENCE

LIMIT = min(32, (os.cpu_count() or 1) + 4)
if sys.version_info >= (3, 13):
    LIMIT = min(32, (os.process_cpu_count() or 1) + 4)


@pytest.fixture(params=["default", "own"])
def pool(request):
    """Return None, for the default executor, or one of the user's."""
    if request.param == "default":
        yield None
        return
    with concurrent.futures.ThreadPoolExecutor(4) as executor:
        yield executor


class Odd(BaseException):
    """Of the application's own."""


@pytest.mark.parametrize("kind", [ZeroDivisionError, OSError, Odd])
async def test_exceptions_of_a_job_reach_the_future(loop, pool, kind):
    def job():
        raise kind("from the thread")

    with pytest.raises(kind, match="from the thread") as caught:
        await loop.run_in_executor(pool, job)
    names = []
    trace = caught.value.__traceback__
    while trace:
        names.append(trace.tb_frame.f_code.co_name)
        trace = trace.tb_next
    assert "job" in names


@pytest.mark.parametrize("kind", [SystemExit, KeyboardInterrupt])
def test_exit_exceptions_leave_the_loop(loop, pool, kind):
    def job():
        raise kind("from the thread")

    async def main():
        await loop.run_in_executor(pool, job)

    with pytest.raises(kind, match="from the thread"):
        loop.run_until_complete(main())
    assert loop.run_until_complete(loop.run_in_executor(pool, int)) == 0


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


async def test_cancel_before_the_start_in_the_default_pool(loop):
    gate = threading.Event()
    ran = []
    busy = [
        loop.run_in_executor(None, gate.wait, PATIENCE) for _ in range(LIMIT)
    ]
    waiting = [loop.run_in_executor(None, ran.append, n) for n in (1, 2)]
    assert waiting[0].cancel()
    # asyncio passes a cancellation on in the next iteration.
    await asyncio.sleep(0)
    gate.set()
    await asyncio.gather(*busy)
    await waiting[1]
    with pytest.raises(asyncio.CancelledError):
        await waiting[0]
    assert ran == [2]


@pytest.mark.keeps_fds
def test_a_process_pool_runs_jobs_and_brings_exceptions(loop, run):
    context = multiprocessing.get_context("spawn")
    with concurrent.futures.ProcessPoolExecutor(1, mp_context=context) as pool:

        async def main():
            assert await loop.run_in_executor(pool, pow, 2, 10) == 1024
            with pytest.raises(ZeroDivisionError):
                await loop.run_in_executor(pool, divmod, 1, 0)
            return await loop.run_in_executor(pool, os.getpid)

        assert run(main()) != os.getpid()


@pytest.mark.skipif(
    sys.version_info < (3, 14), reason="interpreter pools are new in 3.14"
)
def test_an_interpreter_pool(loop, run):
    with concurrent.futures.InterpreterPoolExecutor(1) as pool:

        async def main():
            return await loop.run_in_executor(pool, pow, 2, 10)

        assert run(main()) == 1024


async def test_a_future_whose_cancelled_fails_in_a_worker(
    loop, loop_kind, pool
):
    if loop_kind == "asyncio":
        pytest.skip("asyncio may lose the result")

    class Future(asyncio.Future):
        def cancelled(self):
            if threading.current_thread() is not threading.main_thread():
                raise ZeroDivisionError
            return super().cancelled()

    loop.create_future = lambda: Future(loop=loop)
    for _ in range(40):
        future = loop.run_in_executor(pool, int)
        assert await asyncio.wait_for(future, PATIENCE) == 0


class _Interrupted(threading.Thread):
    """A thread whose start is interrupted, before or after it runs."""

    begins = True
    ran = threading.Event()

    def start(self):
        if self.begins:
            super().start()
            assert self.ran.wait(PATIENCE)
        raise KeyboardInterrupt


@pytest.mark.parametrize("begins", [True, False])
def test_an_interrupt_while_a_thread_starts(loop, monkeypatch, begins):
    """The executor works on, and no other call is lost or made twice."""
    monkeypatch.setattr(_Interrupted, "begins", begins)
    monkeypatch.setattr(_Interrupted, "ran", threading.Event())
    calls = []

    def call(number):
        calls.append(number)
        _Interrupted.ran.set()
        return number

    with monkeypatch.context() as patch:
        patch.setattr(threading, "Thread", _Interrupted)
        with pytest.raises(KeyboardInterrupt):
            loop.run_in_executor(None, call, -1)
    futures = [loop.run_in_executor(None, call, n) for n in range(100)]
    results = loop.run_until_complete(asyncio.gather(*futures))
    assert results == list(range(100))
    loop.run_until_complete(loop.shutdown_default_executor())
    assert sorted(n for n in calls if n >= 0) == list(range(100))


async def idle_worker(pool):
    """Wait until a worker is counted, which 3.11 does after its job ended."""
    while not pool._idle_semaphore.acquire(timeout=0):
        await asyncio.sleep(0)
    pool._idle_semaphore.release()


async def test_idle_workers_are_counted_under_the_semaphores_name(loop):
    """Monitors of a thread pool read the Semaphore's _value."""
    await loop.run_in_executor(None, int)
    pool = loop._default_executor
    await idle_worker(pool)
    assert pool._idle_semaphore._value == 1
    begun, end = threading.Event(), threading.Event()

    def job():
        begun.set()
        assert end.wait(PATIENCE)

    waiting = loop.run_in_executor(None, job)
    assert begun.wait(PATIENCE)
    assert pool._idle_semaphore._value == 0
    end.set()
    await waiting


# -- the end ------------------------------------------------------------------


def test_shutdown_default_executor(loop):
    threads = []
    loop.run_until_complete(
        loop.run_in_executor(
            None, lambda: threads.append(threading.current_thread())
        )
    )
    loop.run_until_complete(loop.shutdown_default_executor())
    assert not threads[0].is_alive()
    with pytest.raises(
        RuntimeError, match="Executor shutdown has been called"
    ):
        loop.run_in_executor(None, int)


def test_close_with_work_in_flight(loop_factory):
    loop = loop_factory()
    begun, gate = threading.Event(), threading.Event()
    threads = []

    def job():
        threads.append(threading.current_thread())
        begun.set()
        gate.wait(PATIENCE)
        return "too late"

    loop.run_in_executor(None, job)
    assert begun.wait(PATIENCE)
    loop.close()
    gate.set()
    threads[0].join(PATIENCE)
    assert not threads[0].is_alive()


def test_close_drops_jobs_that_have_not_begun(loop_factory):
    loop = loop_factory()
    gate = threading.Event()
    ran = []
    for _ in range(LIMIT):
        loop.run_in_executor(None, gate.wait, 2 * PATIENCE)
    loop.run_in_executor(None, ran.append, 1)
    threads = [
        t for t in threading.enumerate() if t.name.startswith("asyncio_")
    ]
    loop.close()
    gate.set()
    for thread in threads:
        thread.join(PATIENCE)
        assert not thread.is_alive()
    # concurrent.futures lets queued work run, shut down or not.
    assert ran == [1]
