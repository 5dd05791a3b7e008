"""What grows: a great many callbacks in an iteration, timers, tasks, jobs."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Callable

from harness.case import (
    Figure,
    LoopFactory,
    Run,
    loop_case,
    simple_case,
    task_case,
)

from cases.callbacks import nothing
from cases.tasks import gather_trivial
from cases.threads import fly
from cases.timers import sample_due

ORDER = 48
PENDING = 1_000_000
CANCELLED = 5_000
DUE = 300_000
TASKS = 100
JOBS = 10
FLIGHTS = 50
SCALE = {"group": "scale", "serial": True}

Loop = asyncio.AbstractEventLoop


def in_one_iteration(count: int, least: int) -> Callable[[Loop, Run], Figure]:
    def measure(loop: Loop, run: Run) -> Figure:
        def schedule() -> None:
            call_soon = loop.call_soon
            for _ in range(count):
                call_soon(nothing)
            call_soon(loop.stop)

        def iteration() -> None:
            loop.call_soon(schedule)
            loop.run_forever()

        return run.sample(iteration, count, least=least)

    return measure


@loop_case("due_300k", "300,000 timers due at once", reach="470", **SCALE)
def due_in_any_order(loop: Loop, run: Run) -> Figure:
    pick = random.Random(4)
    delays = [pick.uniform(0.010, 0.020) for _ in range(DUE)]
    return sample_due(loop, run, delays, least=1)


@loop_case(
    "pending_1m",
    "set and cancel, 1,000,000 timers pending",
    reach="130",
    **SCALE,
)
def beside_pending(loop: Loop, run: Run) -> Figure:
    """Time a timer set and cancelled while many others are pending."""
    delays = random.Random(4)

    def fill() -> None:
        for _ in range(PENDING):
            loop.call_later(delays.uniform(3_600, 7_200), nothing)
        loop.stop()

    def cancel() -> None:
        for _ in range(CANCELLED):
            loop.call_later(delays.uniform(3_600, 7_200), nothing).cancel()
        loop.stop()

    def iteration() -> None:
        loop.call_soon(cancel)
        loop.run_forever()

    loop.call_soon(fill)
    loop.run_forever()
    return run.sample(iteration, CANCELLED)


@simple_case(
    "gather_new", "gather of 100 in a new loop, a task", reach="1850", **SCALE
)
def gather_in_a_new_loop(new_loop: LoopFactory, run: Run) -> Figure:
    def life() -> None:
        loop = new_loop()
        loop.run_until_complete(gather_trivial(TASKS))
        loop.close()

    return run.sample(life, TASKS)


@task_case("gather_200k", "gather of 200,000", 200_000, least=1, **SCALE)
async def gather() -> None:
    await gather_trivial(200_000)


@task_case(
    "executor_10",
    "run_in_executor, 10 in flight, all ten",
    FLIGHTS,
    unit="us",
    group="scale",
    reach="27",
)
async def ten_in_flight() -> None:
    await fly(FLIGHTS, JOBS)


CASES = (
    loop_case(
        "iteration_10k",
        "10,000 callbacks in one iteration",
        reach="105",
        **SCALE,
    )(in_one_iteration(10_000, least=3)),
    loop_case(
        "iteration_1m",
        "1,000,000 callbacks in one iteration",
        reach="105",
        **SCALE,
    )(in_one_iteration(1_000_000, least=1)),
    due_in_any_order,
    beside_pending,
    gather_in_a_new_loop,
    gather,
    ten_in_flight,
)
