"""What a case is, and what it may use while it measures.

A file under `cases/` holds a tuple `CASES` of `Case`.  Each has a function
that takes a loop factory and a `Run`, and returns a figure for each of its
rows.  It is called once in a fresh process, measures for about
`Run.seconds`, and uses nothing that a program of a user would not.
"""

from __future__ import annotations

import fnmatch
import importlib
import statistics
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import asyncio

CASES_FOLDER = Path(__file__).resolve().parents[1] / "cases"
GROUPS = (
    "core",
    "tcp",
    "http",
    "startup",
    "scale",
    "tls",
    "streams",
    "sockets",
    "memory",
    "apps",
    "tail",
)

LoopFactory = Callable[[], "asyncio.AbstractEventLoop"]
# A figure, and the samples it was taken from.
Figure = dict[str, Any]


@dataclass(frozen=True)
class Row:
    """One line of the table.

    `better` says what is good: "less" or "more" (both get ratios), or
    "near 0" for how late a timer is, where less than 0 is wrong.
    `judge` picks among the repetitions: "median" or "least".  `reach` is
    what fastloop is meant to reach: a ratio over uvloop ("1.3x"), or a figure
    ("105").  A row that is `aside` explains another and is no race of its own.
    """

    key: str
    title: str
    unit: str
    better: str = "less"
    judge: str = "median"
    reach: str = ""
    aside: bool = False


@dataclass(frozen=True)
class Case:
    """A measurement: its name, its rows, and the function that takes it.

    `loops` lists the loops it makes sense for; empty means every loop that
    is a loop of its own.  `seconds` is for how long it should measure,
    `limit` after how many seconds it is given up.  `serial` cases never
    wait, so their clock may be the process's own CPU time.  `programs` are
    the C programs it needs, by their names in build.py, `packages` those of
    PyPI, `daemons` the servers, by their names in daemons.py, which it finds
        at the port in `Run.options`; `free_threaded` ones need an interpreter
    that has no GIL, and two CPUs.
    """

    name: str
    group: str
    rows: tuple[Row, ...]
    measure: Callable[[LoopFactory, Run], dict[str, Figure]]
    loops: tuple[str, ...] = ()
    seconds: float = 0.2
    limit: float = 60.0
    serial: bool = False
    programs: tuple[str, ...] = ()
    packages: tuple[str, ...] = ()
    daemons: tuple[str, ...] = ()
    free_threaded: bool = False


@dataclass
class Run:
    """What a case may use while it measures one loop."""

    loop: str
    seconds: float
    clock: Callable[[], int] = time.perf_counter_ns
    options: dict[str, str] = field(default_factory=dict)

    def sample(
        self,
        function: Callable[[], object],
        operations: int,
        *,
        unit: float = 1.0,
        least: int = 3,
    ) -> Figure:
        """Call `function` for `seconds`; return its time per operation.

        One call does `operations` operations and gives one sample, in
        nanoseconds over `unit` (1000.0 for microseconds).  The first call
        is warm-up and not counted; at least `least` are.
        """
        clock = self.clock
        function()
        samples: list[float] = []
        end = time.perf_counter() + self.seconds
        while len(samples) < least or time.perf_counter() < end:
            start = clock()
            function()
            samples.append((clock() - start) / operations / unit)
        return figure(samples)

    def sample_turns(
        self,
        loop: asyncio.AbstractEventLoop,
        batch: Callable[[], object],
        operations: int,
        turns: int,
    ) -> Figure:
        """Call `batch`, which does `operations`, in `turns` turns of `loop`.

        So many turns together are one sample, as in `sample`.
        """
        left = 0

        def turn() -> None:
            nonlocal left
            batch()
            left -= 1
            loop.call_soon(turn if left else loop.stop)

        def run() -> None:
            nonlocal left
            left = turns
            loop.call_soon(turn)
            loop.run_forever()

        return self.sample(run, operations * turns)


def figure(samples: Iterable[float]) -> Figure:
    """Return the figure that `samples` stand for: their median."""
    kept = [float(f"{sample:.6g}") for sample in samples]
    return {
        "figure": statistics.median(kept),
        "least": min(kept),
        "samples": kept,
    }


def simple_case(
    name: str,
    title: str,
    measure: Callable[[LoopFactory, Run], Figure],
    *,
    unit: str = "ns",
    group: str = "core",
    reach: str = "",
    better: str = "less",
    **rest: Any,
) -> Case:
    """Return a case with one row whose function gives one figure."""
    return Case(
        name=name,
        group=group,
        rows=(Row(name, title, unit, better, reach=reach),),
        measure=lambda factory, run: {name: measure(factory, run)},
        **rest,
    )


def all_cases() -> dict[str, Case]:
    """Import every file under `cases/`; return its cases by name, in order.

    Files say where they stand by `ORDER` (an int), so that the table reads
    from the smallest thing a loop does to the largest.
    """
    modules = [
        importlib.import_module(f"cases.{path.stem}")
        for path in sorted(CASES_FOLDER.glob("*.py"))
        if path.stem != "__init__"
    ]
    modules.sort(key=lambda module: module.ORDER)
    found: dict[str, Case] = {}
    for module in modules:
        for case in module.CASES:
            if case.name in found:
                raise ValueError(f"two cases are named {case.name}")
            found[case.name] = case
    return found


def pick_cases(cases: dict[str, Case], wanted: str) -> list[Case]:
    """Return the cases that `wanted` names: a comma list of names, globs
    and groups, in the order of the table.

    Raises ValueError for a part that names nothing.
    """
    picked = set()
    for part in filter(None, (p.strip() for p in wanted.split(","))):
        names = {
            name
            for name, case in cases.items()
            if case.group == part or fnmatch.fnmatchcase(name, part)
        }
        if not names:
            raise ValueError(f"no case or group is named {part!r}")
        picked |= names
    return [case for name, case in cases.items() if name in picked]
