"""The life of a loop: one short run, being made and closed, or all of it."""

from __future__ import annotations

import asyncio

from harness.case import Figure, LoopFactory, Run, loop_case, simple_case

from cases.tasks import gather_trivial, trivial

ORDER = 60
RUNS = 200
LOOPS = 20
TASKS = 100


@loop_case(
    "run_until_complete",
    "run_until_complete, trivial coroutine",
    unit="us",
)
def short_run(loop: asyncio.AbstractEventLoop, run: Run) -> Figure:
    def runs() -> None:
        for _ in range(RUNS):
            loop.run_until_complete(trivial())

    return run.sample(runs, RUNS, unit=1_000)


@simple_case("new_loop", "new_event_loop + close", unit="us")
def make_and_close(new_loop: LoopFactory, run: Run) -> Figure:
    def loops() -> None:
        for _ in range(LOOPS):
            new_loop().close()

    return run.sample(loops, LOOPS, unit=1_000)


@simple_case(
    "gather_new",
    "gather of 100 in a new loop, a task",
)
def whole_life(new_loop: LoopFactory, run: Run) -> Figure:
    def life() -> None:
        loop = new_loop()
        loop.run_until_complete(gather_trivial(TASKS))
        loop.close()

    return run.sample(life, TASKS)


CASES = (short_run, make_and_close, whole_life)
