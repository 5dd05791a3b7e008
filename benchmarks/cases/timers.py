"""Timers that are cancelled, that are due at once, and that follow each other.

A cancelled timer is the fate of most time-outs.  10,000 due timers are what
a program meets after something blocked it.  Waiting is not part of any
figure here: how late a timer comes is measured by lateness.py.
"""

from __future__ import annotations

import time
from collections.abc import Sequence

from harness.case import Figure, LoopFactory, Run, figure, simple_case

ORDER = 30
BATCH = 1_000
TURNS = 5
DUE = 10_000
ROUNDS = 5_000


def nothing() -> None:
    pass


def cancelled(new_loop: LoopFactory, run: Run) -> Figure:
    loop = new_loop()

    def turn() -> None:
        for _ in range(BATCH):
            loop.call_later(30, nothing).cancel()

    result = run.sample_turns(loop, turn, BATCH, TURNS)
    loop.close()
    return result


def due_at_once(new_loop: LoopFactory, run: Run) -> Figure:
    loop = new_loop()

    def schedule() -> None:
        call_later = loop.call_later
        for _ in range(DUE):
            call_later(0, nothing)
        call_later(0, loop.stop)

    def all_due() -> None:
        loop.call_soon(schedule)
        loop.run_forever()

    result = run.sample(all_due, DUE)
    loop.close()
    return result


def due_from_heap(
    new_loop: LoopFactory,
    run: Run,
    delays: Sequence[float] = (0.01236,) * DUE,
    least: int = 4,
) -> Figure:
    """Time scheduling and running, not the wait in between."""
    loop = new_loop()
    samples = []
    start = waited = 0
    end = time.perf_counter() + 2 * run.seconds

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

    while len(samples) < least or time.perf_counter() < end:
        loop.call_soon(schedule)
        loop.run_forever()
        samples.append((run.clock() - start - waited) / len(delays))
    loop.close()
    return figure(samples[1:])


def rounds(new_loop: LoopFactory, run: Run) -> Figure:
    loop = new_loop()
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

    result = run.sample(chain, ROUNDS)
    loop.close()
    return result


CASES = (
    simple_case(
        "call_later_cancel", "call_later + cancel", cancelled, serial=True
    ),
    simple_case(
        "timers_due_zero",
        "10,000 timers due at once, delay 0",
        due_at_once,
        serial=True,
    ),
    simple_case(
        "timers_due_heap",
        "10,000 timers due at once, from the heap",
        due_from_heap,
        serial=True,
    ),
    simple_case("timer_rounds", "timer rounds", rounds, serial=True),
)
