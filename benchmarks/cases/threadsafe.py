"""call_soon_threadsafe: from the loop's own thread, as a burst from another
thread, and as the one call that wakes a loop asleep.

The burst is timed from the first call to the last callback, while the loop
runs beside the thread, as in a program whose worker thread reports results.
The wake-up is the time from the call to the callback it makes; loop and
thread are pinned to different CPUs, for on one CPU it takes a third of the
time and where the system puts them is chance.
"""

from __future__ import annotations

import asyncio
import os
import statistics
import threading
import time

from harness.case import Figure, Run, figure, loop_case

from cases.callbacks import nothing

ORDER = 20
BATCH = 1_000
ITERATIONS = 5
BURST = 5_000
ROW = 50


Loop = asyncio.AbstractEventLoop


@loop_case("threadsafe_same", "call_soon_threadsafe, same thread")
def same_thread(loop: Loop, run: Run) -> Figure:
    def schedule() -> None:
        call_soon_threadsafe = loop.call_soon_threadsafe
        for _ in range(BATCH):
            call_soon_threadsafe(nothing)

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


def pin(place: int) -> None:
    """Keep this thread on one CPU, where there are several and a way to."""
    try:
        cpus = sorted(os.sched_getaffinity(0))
    except AttributeError:
        return
    os.sched_setaffinity(0, {cpus[place]})


@loop_case("threadsafe_wake", "call_soon_threadsafe, wake-up", unit="us")
def wake_up(loop: Loop, run: Run) -> Figure:
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
        pin(-1)

    loop.call_soon(start)
    loop.run_forever()
    thread.join()
    return figure(samples)


CASES = (same_thread, burst, wake_up)
