"""The default executor's end: shutdown_default_executor and close()."""

import concurrent.futures
import os
import sys
import threading

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
