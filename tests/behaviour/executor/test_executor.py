"""run_in_executor and to_thread, on the default pool and on the user's."""

import asyncio
import concurrent.futures
import gc
import multiprocessing
import os
import sys
import threading
import weakref

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


def test_returns_an_asyncio_future_of_the_loop(loop, pool):
    future = loop.run_in_executor(pool, int)
    assert isinstance(future, asyncio.Future)
    assert future.get_loop() is loop
    assert loop.run_until_complete(future) == 0


@pytest.mark.parametrize("kind", [ZeroDivisionError, OSError, KeyError])
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


async def test_base_exception_of_the_users_own(loop, pool):
    class Odd(BaseException):
        pass

    def job():
        raise Odd

    with pytest.raises(Odd):
        await loop.run_in_executor(pool, job)


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


async def test_workers_are_named_asyncio_and_a_number(loop):
    name = await asyncio.to_thread(lambda: threading.current_thread().name)
    assert name.startswith("asyncio_")
    assert name.removeprefix("asyncio_").isdigit()


async def test_workers_are_threads_of_threading(loop):
    thread = await asyncio.to_thread(threading.current_thread)
    assert type(thread) is threading.Thread
    assert thread.ident != threading.get_ident()


async def test_threads_are_made_on_demand_up_to_the_limit(loop):
    before = set(threading.enumerate())
    gate = threading.Event()
    jobs = [loop.run_in_executor(None, gate.wait, PATIENCE) for _ in range(60)]
    while True:
        new = set(threading.enumerate()) - before
        if len(new) >= LIMIT:
            break
        await asyncio.sleep(0)
    for _ in range(5):
        await asyncio.sleep(0)
    new = set(threading.enumerate()) - before
    gate.set()
    assert all(await asyncio.gather(*jobs))
    assert len(new) == LIMIT
    assert all(thread.name.startswith("asyncio_") for thread in new)


async def test_jobs_run_at_the_same_time(loop):
    barrier = threading.Barrier(3)
    jobs = [
        loop.run_in_executor(None, barrier.wait, PATIENCE) for _ in range(3)
    ]
    assert sorted(await asyncio.gather(*jobs)) == [0, 1, 2]


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


def test_result_comes_while_the_loop_does_not_run(loop):
    done = threading.Event()
    future = loop.run_in_executor(None, done.set)
    assert done.wait(PATIENCE)
    assert not future.done()
    assert loop.run_until_complete(future) is None


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


async def test_cancel_while_running(loop, pool):
    begun, gate = threading.Event(), threading.Event()
    ended = threading.Event()

    def job():
        begun.set()
        gate.wait(PATIENCE)
        ended.set()
        return "nobody waits for this"

    future = loop.run_in_executor(pool, job)
    while not begun.is_set():
        await asyncio.sleep(0)
    assert future.cancel()
    with pytest.raises(asyncio.CancelledError):
        await future
    gate.set()
    await loop.run_in_executor(pool, ended.wait, PATIENCE)
    assert ended.is_set()


def test_exception_after_cancel_is_dropped(loop, run, pool):
    begun, gate = threading.Event(), threading.Event()

    def job():
        begun.set()
        gate.wait(PATIENCE)
        raise ZeroDivisionError

    async def main():
        future = loop.run_in_executor(pool, job)
        while not begun.is_set():
            await asyncio.sleep(0)
        future.cancel()
        gate.set()
        await loop.run_in_executor(pool, int)
        await asyncio.sleep(0.001)
        assert future.cancelled()

    run(main())
    gc.collect()


def test_arguments_and_results_are_released(loop, run, pool):
    class Token:
        pass

    async def main():
        token = Token()
        result = await loop.run_in_executor(pool, lambda t: Token(), token)
        alive = [weakref.ref(token), weakref.ref(result)]
        del token, result
        # The worker may hold the job a moment longer than its result.
        for _ in range(1000):
            gc.collect(0)
            if not any(ref() for ref in alive):
                return True
            await asyncio.sleep(0.001)
        return False

    assert run(main())


async def test_gc_while_a_method_runs_does_not_free_its_object(loop, pool):
    class Counter:
        def __init__(self):
            self.value = 5

        def read(self):
            gc.collect()
            return self.value

    assert await loop.run_in_executor(pool, Counter().read) == 5


@pytest.mark.parametrize(
    "bad",
    [None, 1, object(), concurrent.futures.Executor()],
    ids=["None", "1", "object", "another executor"],
)
def test_set_default_executor_checks_the_type(loop, bad):
    with pytest.raises(
        TypeError, match="executor must be ThreadPoolExecutor instance"
    ):
        loop.set_default_executor(bad)


def test_set_default_executor_after_use(loop, run):
    async def main():
        return await asyncio.to_thread(lambda: threading.current_thread().name)

    assert run(main()).startswith("asyncio_")
    first = loop
    with concurrent.futures.ThreadPoolExecutor(
        1, thread_name_prefix="mine"
    ) as pool:
        first.set_default_executor(pool)
        assert run(main()) == "mine_0"


async def test_an_executor_of_the_users_own_class(loop):
    class Inline(concurrent.futures.Executor):
        def submit(self, fn, /, *args, **kwargs):
            future = concurrent.futures.Future()
            future.set_running_or_notify_cancel()
            try:
                future.set_result(fn(*args, **kwargs))
            except Exception as exc:
                future.set_exception(exc)
            return future

    assert await loop.run_in_executor(Inline(), pow, 3, 2) == 9
    with pytest.raises(ZeroDivisionError):
        await loop.run_in_executor(Inline(), divmod, 1, 0)


def test_an_executor_that_refuses(loop, run):
    class Refuses(concurrent.futures.Executor):
        def submit(self, fn, /, *args, **kwargs):
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        loop.run_in_executor(Refuses(), int)


async def test_a_job_that_uses_the_loop(loop):
    def job():
        future = asyncio.run_coroutine_threadsafe(
            asyncio.sleep(0, "back"), loop
        )
        return future.result(PATIENCE)

    assert await asyncio.to_thread(job) == "back"


def test_a_job_that_runs_its_own_loop(loop_factory, loop, run):
    def job():
        own = loop_factory()
        try:
            return own.run_until_complete(asyncio.sleep(0.001, "inner"))
        finally:
            own.close()

    async def main():
        return await asyncio.to_thread(job)

    assert run(main()) == "inner"


async def test_a_patched_run_in_executor_is_used_by_to_thread(loop):
    seen = []
    original = loop.run_in_executor

    def patched(executor, func, *args):
        seen.append(executor)
        return original(executor, func, *args)

    loop.run_in_executor = patched
    assert await asyncio.to_thread(int) == 0
    assert seen == [None]


async def test_deep_recursion_in_a_worker(loop):
    def recurse():
        recurse()

    with pytest.raises(RecursionError):
        await asyncio.to_thread(recurse)


def test_a_thread_pool_with_initializer(loop, run):
    local = threading.local()

    def init():
        local.ready = True

    with concurrent.futures.ThreadPoolExecutor(2, initializer=init) as pool:

        async def main():
            return await loop.run_in_executor(pool, lambda: local.ready)

        assert run(main()) is True


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
