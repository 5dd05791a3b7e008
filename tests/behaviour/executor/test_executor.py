"""run_in_executor and to_thread, on the default pool and on the user's."""

import asyncio
import concurrent.futures
import gc
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


@pytest.mark.parametrize("count", [0, 1, 3, 10, 300])
async def test_a_job_gets_its_arguments(loop, pool, count):
    def job(*args):
        return args

    arguments = tuple(range(count))
    assert await loop.run_in_executor(pool, job, *arguments) == arguments


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


async def test_cancelled_error_from_the_thread(loop, pool):
    def job():
        raise asyncio.CancelledError

    with pytest.raises(asyncio.CancelledError):
        await loop.run_in_executor(pool, job)


async def test_each_of_many_jobs_gives_its_result(loop, pool):
    assert await asyncio.gather(
        *[loop.run_in_executor(pool, pow, n, 2) for n in range(1000)]
    ) == [n * n for n in range(1000)]


def test_jobs_of_one_worker_run_in_order(loop, run):
    seen = []
    with concurrent.futures.ThreadPoolExecutor(1) as pool:

        async def main():
            await asyncio.gather(
                *[
                    loop.run_in_executor(pool, seen.append, n)
                    for n in range(200)
                ]
            )

        run(main())
    assert seen == list(range(200))


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


async def test_gc_while_a_method_runs_does_not_free_its_object(loop, pool):
    class Counter:
        def __init__(self):
            self.value = 5

        def read(self):
            gc.collect()
            return self.value

    assert await loop.run_in_executor(pool, Counter().read) == 5


def test_an_executor_that_refuses(loop, run):
    class Refuses(concurrent.futures.Executor):
        def submit(self, fn, /, *args, **kwargs):
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        loop.run_in_executor(Refuses(), int)


async def test_deep_recursion_in_a_worker(loop):
    def recurse():
        recurse()

    with pytest.raises(RecursionError):
        await asyncio.to_thread(recurse)


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


async def test_a_raised_maximum_gives_more_threads(loop):
    await loop.run_in_executor(None, int)
    pool = loop._default_executor
    await idle_worker(pool)
    pool._max_workers = 1
    for _ in range(10):
        await loop.run_in_executor(None, int)
        await idle_worker(pool)
    pool._max_workers = 4
    barrier = threading.Barrier(4, timeout=PATIENCE)
    waiting = [loop.run_in_executor(None, barrier.wait) for _ in range(4)]
    assert sorted(await asyncio.gather(*waiting)) == [0, 1, 2, 3]


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
