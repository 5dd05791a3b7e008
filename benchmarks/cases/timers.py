"""Timers that are cancelled, that are due at once, and that follow each other.

A cancelled timer is the fate of most time-outs.  10,000 due timers are what
a program meets after something blocked it.  Waiting is not part of any
figure here.
"""

from __future__ import annotations

import asyncio
import time

from harness.case import Figure, Run, figure, loop_case

from cases.callbacks import nothing

ORDER = 30
BATCH = 1_000
ITERATIONS = 5
DUE = 10_000
ROUNDS = 5_000

Loop = asyncio.AbstractEventLoop


@loop_case("call_later_cancel", "call_later + cancel")
def cancelled(loop: Loop, run: Run) -> Figure:
    def schedule() -> None:
        for _ in range(BATCH):
            loop.call_later(30, nothing).cancel()

    return run.sample_iterations(loop, schedule, BATCH, ITERATIONS)


@loop_case("timers_due_heap", "10,000 timers due at once")
def due_at_once(loop: Loop, run: Run) -> Figure:
    """Time scheduling and running, not the wait in between."""
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


@loop_case("timer_rounds", "timer rounds")
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


CASES = (cancelled, due_at_once, rounds)
