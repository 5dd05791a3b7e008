"""Callbacks: of call_soon, from other threads, and of timers."""

from __future__ import annotations

import asyncio
import statistics
import threading
import time

from harness.case import Figure, Run, figure, loop_case
from harness.network import pin

ORDER = 10
BATCH = 1_000
ITERATIONS = 20
BURST = 5_000
ROW = 50
CANCELLED = 5
DUE = 10_000

Loop = asyncio.AbstractEventLoop


def nothing() -> None:
    pass


@loop_case("call_soon", "call_soon, batch")
def batch(loop: Loop, run: Run) -> Figure:
    def schedule() -> None:
        call_soon = loop.call_soon
        for _ in range(BATCH):
            call_soon(nothing)

    return run.sample_iterations(loop, schedule, BATCH, ITERATIONS)


@loop_case("threadsafe_burst", "call_soon_threadsafe, burst from a thread")
def burst(loop: Loop, run: Run) -> Figure:
    def worker() -> None:
        call_soon_threadsafe = loop.call_soon_threadsafe
        for _ in range(BURST):
            call_soon_threadsafe(nothing)
        call_soon_threadsafe(loop.stop)

    def one_burst() -> None:
        thread = threading.Thread(target=worker)
        loop.call_soon(thread.start)
        loop.run_forever()
        thread.join()

    return run.sample(one_burst, BURST)


def wake_up_us(loop: Loop, run: Run, place: int) -> Figure:
    """Wake a loop on the CPU at a place, by a thread on the first CPU.

    A wake-up on one CPU takes a third of the time, and where the system puts
    the loop and the thread is chance.
    """
    took: list[float] = []
    samples: list[float] = []
    woken = threading.Lock()
    woken.acquire()
    called = 0

    def wake() -> None:
        took.append((time.perf_counter_ns() - called) / 1_000)
        woken.release()

    def row() -> float:
        """Return the middle of some in a row: one wake-up is chance."""
        nonlocal called
        took.clear()
        for _ in range(ROW):
            called = time.perf_counter_ns()
            loop.call_soon_threadsafe(wake)
            # Until this thread is woken the loop has gone to sleep again.
            woken.acquire()
        return statistics.median(took)

    def worker() -> None:
        pin(0)
        row()
        samples.extend(row() for _ in run.repeat())
        loop.call_soon_threadsafe(loop.stop)

    thread = threading.Thread(target=worker)

    def start() -> None:
        thread.start()
        # After it: a thread inherits its maker's CPUs.
        pin(place)

    loop.call_soon(start)
    loop.run_forever()
    thread.join()
    return figure(samples)


WAKE_UP = "call_soon_threadsafe, wake-up"


@loop_case("threadsafe_wake", WAKE_UP, unit="us")
def wake_up(loop: Loop, run: Run) -> Figure:
    return wake_up_us(loop, run, -1)


@loop_case("threadsafe_wake_one_cpu", f"{WAKE_UP}, one CPU", unit="us")
def wake_up_on_one_cpu(loop: Loop, run: Run) -> Figure:
    return wake_up_us(loop, run, 0)


@loop_case("call_later_cancel", "call_later + cancel")
def cancelled(loop: Loop, run: Run) -> Figure:
    def schedule() -> None:
        for _ in range(BATCH):
            loop.call_later(30, nothing).cancel()

    return run.sample_iterations(loop, schedule, BATCH, CANCELLED)


@loop_case("timers_due_heap", "10,000 timers due at once")
def due_at_once(loop: Loop, run: Run) -> Figure:
    start = waited = 0

    def schedule() -> None:
        nonlocal start, waited
        start = run.clock()
        call_later = loop.call_later
        for _ in range(DUE):
            call_later(0.01236, nothing)
        call_later(0.022, loop.stop)
        before = run.clock()
        time.sleep(0.025)
        waited = run.clock() - before

    def sample() -> float:
        loop.call_soon(schedule)
        loop.run_forever()
        return (run.clock() - start - waited) / DUE

    sample()
    return figure(sample() for _ in run.repeat())


CASES = (
    batch,
    burst,
    wake_up,
    wake_up_on_one_cpu,
    cancelled,
    due_at_once,
)
