"""What grows: a great many callbacks in one turn, timers, tasks and jobs."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Callable
from functools import partial

from harness.case import Case, Figure, LoopFactory, Run, simple_case

from cases.callbacks import nothing
from cases.tasks import sample_coroutine, trivial
from cases.threads import in_microseconds, job
from cases.timers import due_from_heap

ORDER = 48
PENDING = 1_000_000
CANCELLED = 5_000
DUE = 300_000
TASKS = 100
JOBS = 10
FLIGHTS = 50

Measure = Callable[[LoopFactory, Run], Figure]


def in_one_turn(count: int, new_loop: LoopFactory, run: Run) -> Figure:
    loop = new_loop()

    def schedule() -> None:
        call_soon = loop.call_soon
        for _ in range(count):
            call_soon(nothing)
        call_soon(loop.stop)

    def turn() -> None:
        loop.call_soon(schedule)
        loop.run_forever()

    least = 3 if count < PENDING else 1
    figure = run.sample(turn, count, least=least)
    loop.close()
    return figure


def due_in_any_order(new_loop: LoopFactory, run: Run) -> Figure:
    pick = random.Random(4)
    delays = [pick.uniform(0.010, 0.020) for _ in range(DUE)]
    return due_from_heap(new_loop, run, delays, least=2)


def gather_in_a_new_loop(new_loop: LoopFactory, run: Run) -> Figure:
    async def gather() -> None:
        await asyncio.gather(*[trivial() for _ in range(TASKS)])

    def life() -> None:
        loop = new_loop()
        loop.run_until_complete(gather())
        loop.close()

    return run.sample(life, TASKS)


def gather(count: int, new_loop: LoopFactory, run: Run) -> Figure:
    async def gatherer() -> None:
        await asyncio.gather(*[trivial() for _ in range(count)])

    return sample_coroutine(new_loop, run, gatherer, count, least=1)


def beside_pending(new_loop: LoopFactory, run: Run) -> Figure:
    """Time a timer set and cancelled while many others are pending."""
    loop = new_loop()
    delays = random.Random(4)

    def fill() -> None:
        for _ in range(PENDING):
            loop.call_later(delays.uniform(3_600, 7_200), nothing)
        loop.stop()

    def cancel() -> None:
        for _ in range(CANCELLED):
            loop.call_later(delays.uniform(3_600, 7_200), nothing).cancel()
        loop.stop()

    def turn() -> None:
        loop.call_soon(cancel)
        loop.run_forever()

    loop.call_soon(fill)
    loop.run_forever()
    figure = run.sample(turn, CANCELLED)
    loop.close()
    return figure


def ten_in_flight(new_loop: LoopFactory, run: Run) -> Figure:
    async def jobs() -> None:
        loop = asyncio.get_running_loop()
        for _ in range(FLIGHTS):
            await asyncio.gather(
                *[loop.run_in_executor(None, job) for _ in range(JOBS)]
            )

    return in_microseconds(sample_coroutine(new_loop, run, jobs, FLIGHTS))


def scale_case(
    name: str, title: str, measure: Measure, reach: str, unit: str = "ns"
) -> Case:
    return simple_case(
        name,
        title,
        measure,
        unit=unit,
        group="scale",
        reach=reach,
        serial=unit == "ns",
    )


CASES = (
    scale_case(
        "turn_10k",
        "10,000 callbacks in one turn",
        partial(in_one_turn, 10_000),
        "105",
    ),
    scale_case(
        "turn_1m",
        "1,000,000 callbacks in one turn",
        partial(in_one_turn, 1_000_000),
        "105",
    ),
    scale_case(
        "due_300k",
        "300,000 timers due at once",
        due_in_any_order,
        "470",
    ),
    scale_case(
        "pending_1m",
        "set and cancel, 1,000,000 timers pending",
        beside_pending,
        "130",
    ),
    scale_case(
        "gather_new",
        "gather of 100 in a new loop, a task",
        gather_in_a_new_loop,
        "1850",
    ),
    scale_case(
        "gather_200k", "gather of 200,000", partial(gather, 200_000), ""
    ),
    scale_case(
        "executor_10",
        "run_in_executor, 10 in flight, all ten",
        ten_in_flight,
        "27",
        "us",
    ),
)
