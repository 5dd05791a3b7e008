"""The default executor's end: shutdown_default_executor and close()."""

import concurrent.futures
import os
import sys
import threading
import time

import pytest
from patience import PATIENCE

LIMIT = min(32, (os.cpu_count() or 1) + 4)
if sys.version_info >= (3, 13):
    LIMIT = min(32, (os.process_cpu_count() or 1) + 4)


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


def test_shutdown_default_executor_without_use(loop):
    assert loop.run_until_complete(loop.shutdown_default_executor()) is None
    with pytest.raises(
        RuntimeError, match="Executor shutdown has been called"
    ):
        loop.run_in_executor(None, int)


def test_shutdown_twice(loop):
    loop.run_until_complete(loop.run_in_executor(None, int))
    loop.run_until_complete(loop.shutdown_default_executor())
    loop.run_until_complete(loop.shutdown_default_executor())


def test_own_pools_still_work_after_shutdown(loop, run):
    loop.run_until_complete(loop.shutdown_default_executor())
    with concurrent.futures.ThreadPoolExecutor(1) as pool:
        future = loop.run_in_executor(pool, int)
        assert loop.run_until_complete(future) == 0


def test_shutdown_waits_for_work_in_flight(loop):
    ended = []
    gate = threading.Event()

    def job():
        gate.wait(PATIENCE)
        ended.append(1)

    loop.run_in_executor(None, job)
    loop.call_later(0.005, gate.set)
    loop.run_until_complete(loop.shutdown_default_executor())
    assert ended == [1]


@pytest.mark.skipif(
    sys.version_info < (3, 13), reason="asyncio 3.12 waits all the same"
)
def test_shutdown_timeout(loop):
    gate = threading.Event()
    future = loop.run_in_executor(None, gate.wait, 2 * PATIENCE)
    start = time.monotonic()
    with pytest.warns(RuntimeWarning, match="The executor did not finish"):
        loop.run_until_complete(loop.shutdown_default_executor(0.01))
    assert time.monotonic() - start < PATIENCE
    gate.set()
    loop.run_until_complete(future)


@pytest.mark.skipif(
    sys.version_info < (3, 12), reason="timeout is new in 3.12"
)
def test_shutdown_within_the_timeout(loop):
    loop.run_until_complete(loop.run_in_executor(None, int))
    loop.run_until_complete(loop.shutdown_default_executor(timeout=PATIENCE))


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


def test_close_with_work_in_flight_in_an_own_pool(loop_factory):
    loop = loop_factory()
    begun, gate = threading.Event(), threading.Event()

    def job():
        begun.set()
        gate.wait(PATIENCE)

    with concurrent.futures.ThreadPoolExecutor(1) as pool:
        loop.run_in_executor(pool, job)
        assert begun.wait(PATIENCE)
        loop.close()
        gate.set()


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
