"""The start of the executor's threads, and what interrupts it."""

import asyncio
import threading
from concurrent.futures import ThreadPoolExecutor

import pytest
from patience import PATIENCE


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


@pytest.mark.parametrize("kind", ["default", "own"])
async def test_a_raised_maximum_gives_more_threads(loop, kind):
    pool = ThreadPoolExecutor(1)
    if kind == "default":
        await loop.run_in_executor(None, int)
        pool.shutdown()
        pool = loop._default_executor
        await idle_worker(pool)
        pool._max_workers = 1
    for _ in range(10):
        await loop.run_in_executor(pool, int)
        await idle_worker(pool)
    pool._max_workers = 4
    barrier = threading.Barrier(4, timeout=PATIENCE)
    waiting = [loop.run_in_executor(pool, barrier.wait) for _ in range(4)]
    assert sorted(await asyncio.gather(*waiting)) == [0, 1, 2, 3]
    pool.shutdown()


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
