"""What a case is, and what it may use while it measures.

README.md says how to write one.  It uses nothing that a program of a user
would not.
"""

from __future__ import annotations

import asyncio
import fnmatch
import importlib
import statistics
import time
from collections.abc import Callable, Container, Iterable, Iterator
from dataclasses import dataclass
from itertools import repeat
from pathlib import Path
from typing import Any

from harness.counts import SAMPLES, Counter
from harness.loops import OWN_LOOPS

CASES_FOLDER = Path(__file__).resolve().parents[1] / "cases"
# The groups of cases, and of rows that need two threads, and their titles in
# the report, in its order.
GROUPS = {
    "core": "The loop itself",
    "tcp": "TCP and TLS echo, 1 to 1,000 connections",
    "tls": "TLS",
    "streams": "Streams, and bytes one way",
    "quiet": "Quiet servers",
    "sockets": "sock_*, connections, UDP, Unix, pipes, processes",
    "memory": "Memory",
    "http": "HTTP servers",
    "web": "Web applications",
    "apps": "Applications",
    "tokens": "Streams of tokens",
    "workers": "Several workers",
    "tail": "Tail latency",
    "late": "Nothing is late",
    "startup": "Start",
    "threads": "Two loops in two threads, without a GIL",
}
# Groups and cases that are not counted: what is no time of a process, waits
# for one, or depends on how long it waits; and handshakes, of which a sample
# has few.
UNCOUNTED = {
    *("memory", "quiet", "tokens", "workers", "tail", "late", "startup"),
    "tls_handshake",
}
LoopFactory = Callable[[], asyncio.AbstractEventLoop]
# A figure, and the samples it was taken from.
Figure = dict[str, Any]


@dataclass(frozen=True)
class Row:
    """One line of the table.

    `judge` picks among the repetitions: "median", "least" or "most".  A row
    that is `aside` explains another and is no race of its own.  `cpu_of` names
    a daemon or "self", whose CPU time the worker measures with the first row.
    """

    key: str
    title: str
    unit: str
    judge: str = "median"
    aside: bool = False
    cpu_of: str = ""

    @property
    def better(self) -> str:
        """Say what is good: "less" or "more"."""
        return "more" if self.unit in ("1/s", "MiB/s", "times") else "less"


@dataclass(frozen=True)
class Case:
    """A measurement: its name, its rows, and the function that takes it.

    `loops` lists the loops it makes sense for.  `seconds` is for how long it
    should measure.  In each repetition all loops are measured in so many
    `rounds`: the more, the more the figures spread.  A `loaded` case is one
    of a server that the load generator loads.  `packages` are those it needs
    of PyPI, `daemons` the servers, by their names in daemons.py;
    `free_threaded` ones need an interpreter that has no GIL.
    """

    name: str
    group: str
    rows: tuple[Row, ...]
    measure: Callable[[LoopFactory, Run], dict[str, Figure]]
    loops: tuple[str, ...] = OWN_LOOPS
    seconds: float = 0.2
    rounds: int = 1
    loaded: bool = False
    packages: tuple[str, ...] = ()
    daemons: tuple[str, ...] = ()
    free_threaded: bool = False

    def played_on(self, loops: Container[str]) -> list[str]:
        """Return those of `loops` that it is measured on, in their order."""
        return [name for name in self.loops if name in loops]

    def is_counted(self) -> bool:
        """Say whether its figures can be counts in place of times."""
        return not self.free_threaded and UNCOUNTED.isdisjoint(
            (self.group, self.name)
        )


@dataclass
class Run:
    """What a case may use while it measures one loop."""

    loop: str
    seconds: float
    clock: Callable[[], int] = time.perf_counter_ns
    #: Waits for this loop's turn; False: the others have enough samples, too.
    pause: Callable[[], bool] | None = None
    #: What `clock` reads where it counts; it counts a server, or this process.
    counter: Counter | None = None

    def repeat(self) -> Iterator[None]:
        """Iterate once for each sample, alternating with the other loops.

        Without other loops: for `seconds`, or where it counts a few times.
        """
        if self.pause is not None:
            while self.pause():
                yield
            return
        if self.counter is not None:
            yield from repeat(None, SAMPLES)
            return
        end = time.perf_counter() + self.seconds
        yield
        while time.perf_counter() < end:
            yield

    def sample(
        self,
        function: Callable[[], object],
        operations: int,
        unit: float = 1.0,
    ) -> Figure:
        """Call `function` as `repeat` says; return its time per operation.

        One call does `operations` operations and gives one sample, in
        nanoseconds over `unit` (1000.0 for microseconds).  The first call
        is warm-up and not counted.
        """
        clock = self.clock
        function()
        samples: list[float] = []
        for _ in self.repeat():
            start = clock()
            function()
            samples.append((clock() - start) / operations / unit)
        return figure(samples)

    def sample_iterations(
        self,
        loop: asyncio.AbstractEventLoop,
        batch: Callable[[], object],
        operations: int,
        iterations: int,
    ) -> Figure:
        """Call `batch`, which does `operations`, in so many iterations.

        They are one sample together, as in `sample`.
        """
        left = 0

        def iteration() -> None:
            nonlocal left
            batch()
            left -= 1
            loop.call_soon(iteration if left else loop.stop)

        def run() -> None:
            nonlocal left
            left = iterations
            loop.call_soon(iteration)
            loop.run_forever()

        return self.sample(run, operations * iterations)


def figure(samples: Iterable[float]) -> Figure:
    """Return the figure that `samples` stand for: their median."""
    kept = [float(f"{sample:.6g}") for sample in samples]
    return {"figure": statistics.median(kept), "samples": kept}


def cpu_row(key: str, title: str, side: str, of: str) -> Row:
    """Return the row of the CPU time of one side for an operation."""
    title = f"{title}, {side} CPU"
    return Row(f"{key}_{side}", title, "us", aside=True, cpu_of=of)


def simple_case(
    name: str,
    title: str,
    unit: str = "ns",
    group: str = "core",
    cpu: Iterable[tuple[str, str]] = (),
    **rest: Any,
) -> Callable[[Callable[[LoopFactory, Run], Figure]], Case]:
    """Make a case with one row of a function that gives one figure; rows of
    the `cpu` of some sides stand beside it."""
    beside = [cpu_row(name, title, *side) for side in cpu]

    def case(function: Callable[[LoopFactory, Run], Figure]) -> Case:
        return Case(
            name=name,
            group=group,
            rows=(Row(name, title, unit), *beside),
            measure=lambda new_loop, run: {name: function(new_loop, run)},
            **rest,
        )

    return case


def loop_case(name: str, title: str, **rest: Any) -> Callable[..., Case]:
    """Make a case as simple_case; the function gets a loop, closed after."""

    def case(function: Callable[[Any, Run], Figure]) -> Case:
        def measure(new_loop: LoopFactory, run: Run) -> Figure:
            loop = new_loop()
            # As in a program: a loop that has served may have a __dict__.
            serve = loop.create_server(asyncio.Protocol, "127.0.0.1", 0)
            loop.run_until_complete(serve).close()
            found = function(loop, run)
            loop.close()
            return found

        return simple_case(name, title, **rest)(measure)

    return case


def task_case(
    name: str, title: str, operations: int, **rest: Any
) -> Callable[..., Case]:
    """Make a case of a coroutine function: one run is one sample."""

    def case(function: Callable[[], Any]) -> Case:
        def measure(loop: asyncio.AbstractEventLoop, run: Run) -> Figure:
            asyncio.set_event_loop(loop)
            found = run.sample(
                lambda: loop.run_until_complete(function()),
                operations,
                unit=1_000.0 if rest.get("unit") == "us" else 1.0,
            )
            asyncio.set_event_loop(None)
            return found

        return loop_case(name, title, **rest)(measure)

    return case


def all_cases() -> dict[str, Case]:
    """Import every file under `cases/`; return its cases by name, in order.

    Files say where they stand by `ORDER` (an int), so that the table reads
    from the smallest thing a loop does to the largest.
    """
    modules = [
        importlib.import_module(f"cases.{path.stem}")
        for path in sorted(CASES_FOLDER.glob("*.py"))
    ]
    modules.sort(key=lambda module: module.ORDER)
    return {case.name: case for module in modules for case in module.CASES}


def pick_cases(cases: dict[str, Case], wanted: str) -> list[Case]:
    """Return the cases that `wanted` names: a comma list of names, globs
    and groups, in the order of the table.

    Raises ValueError for a part that names nothing.
    """
    picked = set()
    for part in filter(None, (p.strip() for p in wanted.split(","))):
        names = fnmatch.filter(cases, part)
        names += [name for name in cases if cases[name].group == part]
        if not names:
            raise ValueError(f"no case or group is named {part!r}")
        picked |= {*names}
    return [case for name, case in cases.items() if name in picked]
