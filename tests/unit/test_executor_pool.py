"""run_in_executor of fastloop: what asyncio's does not promise, or not do.

Behaviour that both share is in behaviour/executor/test_executor.py; here are
jobs in the queue of a standard thread pool, and threads that cannot be
started.  Jobs wait for events, never for time.
"""

from __future__ import annotations

import asyncio
import gc
import itertools
import threading
import weakref
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from concurrent.futures.thread import BrokenThreadPool
from typing import Any

import pytest
from builds import HAS_GIL
from patience import PATIENCE

import fastloop


@pytest.fixture
def loop() -> Iterator[Any]:
    """Return a fastloop loop; its default executor is shut down after."""
    loop = fastloop.new_event_loop()
    yield loop
    loop.run_until_complete(loop.shutdown_default_executor())
    loop.close()


class Gate:
    """A job that says when it has begun and ends when it is let go."""

    def __init__(self) -> None:
        self.begun = threading.Event()
        self.go = threading.Event()

    def __call__(self, result: Any = None) -> Any:
        self.begun.set()
        assert self.go.wait(PATIENCE)
        return result


def wait_for(event: threading.Event) -> None:
    assert event.wait(PATIENCE), "the other thread did not come that far"


def name() -> str:
    return threading.current_thread().name


def test_without_a_thread_the_call_is_refused_and_never_runs(
    loop, monkeypatch
):
    ran: list[int] = []

    def start(self):
        raise RuntimeError("can't start new thread")

    monkeypatch.setattr(threading.Thread, "start", start)
    with pytest.raises(RuntimeError, match="can't start new thread"):
        loop.run_in_executor(None, ran.append, 1)
    monkeypatch.undo()
    future = loop.run_in_executor(None, name)
    assert loop.run_until_complete(future) == "asyncio_0"
    assert ran == []


def jobs_in_c_before_the_loop_came(loop, pool):
    """How many of 500 ran while the loop waited for a millisecond."""
    gate = Gate()
    counter = itertools.count()
    jobs = [loop.run_in_executor(pool, gate)]
    wait_for(gate.begun)
    for _ in range(500):
        jobs.append(loop.run_in_executor(pool, next, counter))
        jobs.append(loop.run_in_executor(pool, sum, range(5_000)))

    async def main():
        gate.go.set()
        await asyncio.sleep(0.001)
        ran = next(counter)
        await asyncio.gather(*jobs)
        return ran

    return loop.run_until_complete(main())


@pytest.mark.skipif(not HAS_GIL, reason="there is no GIL to yield")
def test_jobs_in_c_do_not_block_the_loop(loop):
    """A worker that never enters the interpreter still yields the GIL."""
    # One that does not has run all of them or, before the kernel let it
    # begin, none; on a busy machine this may be so once and again.
    with ThreadPoolExecutor(1) as pool:
        assert any(
            0 < jobs_in_c_before_the_loop_came(loop, pool) < 500
            for _ in range(20)
        )


def test_shutdown_can_cancel_waiting_jobs(loop):
    pool = ThreadPoolExecutor(1)
    gate = Gate()
    ran: list[int] = []
    first = loop.run_in_executor(pool, gate, 1)
    wait_for(gate.begun)
    ours = loop.run_in_executor(pool, ran.append, 1)
    theirs = pool.submit(ran.append, 2)
    pool.shutdown(wait=False, cancel_futures=True)
    gate.go.set()
    assert theirs.cancelled()
    with pytest.raises(asyncio.CancelledError):
        loop.run_until_complete(ours)
    assert loop.run_until_complete(first) == 1
    assert ran == []
    pool.shutdown()


def test_an_initializer_that_fails_fails_the_jobs_that_wait(loop):
    gate = Gate()

    def fail() -> None:
        gate(None)
        raise ZeroDivisionError

    with ThreadPoolExecutor(1, initializer=fail) as pool:
        first = loop.run_in_executor(pool, name)
        wait_for(gate.begun)
        second = loop.run_in_executor(pool, name)
        gate.go.set()
        for future in first, second:
            with pytest.raises(BrokenThreadPool):
                loop.run_until_complete(future)
        with pytest.raises(BrokenThreadPool):
            loop.run_in_executor(pool, name)


def test_an_unreferenced_loop_is_collected_and_its_threads_end():
    loop = fastloop.new_event_loop()
    loop.run_until_complete(loop.run_in_executor(None, name))
    pool = weakref.ref(loop._default_executor)
    threads = list(loop._default_executor._threads)
    with pytest.warns(ResourceWarning, match="unclosed event loop"):
        del loop
        gc.collect()
    assert pool() is None
    for thread in threads:
        thread.join(PATIENCE)
        assert not thread.is_alive()
