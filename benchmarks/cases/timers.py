"""Timers that are cancelled, that are due at once, and that follow each other.

A cancelled timer is the fate of most time-outs.  10,000 due timers are what
a program meets after something blocked it.  Waiting is not part of any
figure here: how late a timer comes is measured by lateness.py.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Sequence

from harness.case import Figure, Run, figure, loop_case

from cases.callbacks import nothing

ORDER = 30
BATCH = 1_000
ITERATIONS = 5
DUE = 10_000
ROUNDS = 5_000

Loop = asyncio.AbstractEventLoop


@loop_case("call_later_cancel", "call_later + cancel", serial=True)
def cancelled(loop: Loop, run: Run) -> Figure:
    def schedule() -> None:
        for _ in range(BATCH):
            loop.call_later(30, nothing).cancel()

    return run.sample_iterations(loop, schedule, BATCH, ITERATIONS)


@loop_case(
    "timers_due_zero", "10,000 timers due at once, delay 0", serial=True
)
def due_at_once(loop: Loop, run: Run) -> Figure:
    def schedule() -> None:
        call_later = loop.call_later
        for _ in range(DUE):
            call_later(0, nothing)
        call_later(0, loop.stop)

    def all_due() -> None:
        loop.call_soon(schedule)
        loop.run_forever()

    return run.sample(all_due, DUE)


def sample_due(
    loop: Loop, run: Run, delays: Sequence[float], least: int
) -> Figure:
    """Time scheduling and running, not the wait in between."""
    start = waited = 0

    def schedule() -> None:
        nonlocal start, waited
        start = run.clock()
        call_later = loop.call_later
        for delay in delays:
            call_later(delay, nothing)
        call_later(0.022, loop.stop)
        before = run.clock()
        time.sleep(0.025)
        waited = run.clock() - before

    def sample() -> float:
        loop.call_soon(schedule)
        loop.run_forever()
        return (run.clock() - start - waited) / len(delays)

    sample()
    return figure(sample() for _ in run.repeat(least))


@loop_case(
    "timers_due_heap", "10,000 timers due at once, from the heap", serial=True
)
def due_from_heap(loop: Loop, run: Run) -> Figure:
    return sample_due(loop, run, (0.01236,) * DUE, least=3)


@loop_case("timer_rounds", "timer rounds", serial=True)
def rounds(loop: Loop, run: Run) -> Figure:
    call_later = loop.call_later
    left = 0

    def tick() -> None:
        nonlocal left
        left -= 1
        if left:
            call_later(0, tick)
        else:
            loop.stop()

    def chain() -> None:
        nonlocal left
        left = ROUNDS
        call_later(0, tick)
        loop.run_forever()

    return run.sample(chain, ROUNDS)


CASES = (cancelled, due_at_once, due_from_heap, rounds)
