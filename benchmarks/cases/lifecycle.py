"""The life of a loop: one short run, and being made and closed."""

from __future__ import annotations

from harness.case import Figure, LoopFactory, Run, simple_case

ORDER = 60
RUNS = 200
LOOPS = 20


async def trivial() -> None:
    pass


def short_run(new_loop: LoopFactory, run: Run) -> Figure:
    loop = new_loop()

    def runs() -> None:
        for _ in range(RUNS):
            loop.run_until_complete(trivial())

    figure = run.sample(runs, RUNS, unit=1_000)
    loop.close()
    return figure


def make_and_close(new_loop: LoopFactory, run: Run) -> Figure:
    def loops() -> None:
        for _ in range(LOOPS):
            new_loop().close()

    return run.sample(loops, LOOPS, unit=1_000)


CASES = (
    simple_case(
        "run_until_complete",
        "run_until_complete, trivial coroutine",
        short_run,
        unit="us",
        serial=True,
    ),
    simple_case(
        "new_loop",
        "new_event_loop + close",
        make_and_close,
        unit="us",
        serial=True,
    ),
)
