"""Takes the measurements, with the loops alternating (`heat.py`).

Each repetition goes through all cases.  README.md has the method.
"""

from __future__ import annotations

import math
import os
import sys
import time
from argparse import Namespace
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass, field
from importlib import metadata
from itertools import product
from pathlib import Path
from tempfile import TemporaryDirectory

from fastloop.cli.info import machine
from harness import counts, heat, report
from harness.case import Case
from harness.loops import LOOPS

WORKER = [sys.executable, str(Path(__file__).with_name("worker.py"))]
PROBE_LIMIT = 20.0
COUNT_LIMIT = 120.0

Say = Callable[[str], None]


def facts(cases: Iterable[Case]) -> dict:
    """Return what a report says of the machine and of what is installed."""
    names = {name for case in cases for name in case.packages}
    packages = {}
    for name in sorted(names.union(LOOPS) - {"asyncio"}):
        with suppress(metadata.PackageNotFoundError):
            packages[name] = metadata.version(name)
    disable = os.environ.get("FASTLOOP_DISABLE", "")
    return {**machine(), "packages": packages, "fastloop_disable": disable}


def probe(name: str) -> dict:
    """Return {"version": ...} of the loop `name`, or {"error": ...}."""
    return heat.run({name: [*WORKER, name]}, PROBE_LIMIT)[name]


@dataclass
class Entry:
    """A case in the race: its rows, as the JSON has them, and its loops."""

    case: Case
    loops: list[str]
    rows: list[dict]
    failed: set[str] = field(default_factory=set)

    def measure(
        self, loops: list[str], scale: float, limit: float
    ) -> dict[str, dict]:
        """Measure these loops together; return and keep their answers."""
        seconds = self.case.seconds * scale
        words = [self.case.name, f"--seconds={seconds}", "--pause"]
        commands = {
            loop: [*WORKER, loop, *words]
            for loop in loops
            if loop not in self.failed
        }
        try:
            answers = heat.run(commands, limit)
        except OSError as error:  # no process could be started
            answers = dict.fromkeys(commands, {"error": str(error)})
        for loop, answer in answers.items():
            if "error" in answer:
                self.failed.add(loop)
            for row in self.rows:
                report.keep(row, loop, answer)
        return dict.fromkeys(loops, {"error": "failed before"}) | answers


def take(
    cases: list[Case], loops: list[str], settings: Namespace, say: Say
) -> tuple[list[dict], str]:
    """Take all measurements; return their rows, and why some are missing.

    A KeyboardInterrupt, or the end of `settings.minutes`, ends the run early.
    `say` prints each measurement.
    """
    entries = [
        Entry(case, case.played_on(loops), report.new_rows(case))
        for case in cases
    ]
    heats = [
        (entry, heat.rotated(entry.loops, number + turn))
        for repetition in range(settings.repeat)
        for number, entry in enumerate(entries)
        for rounds in [entry.case.rounds]
        for turn in range(repetition * rounds, (repetition + 1) * rounds)
    ]
    total = sum(len(loops) for _, loops in heats)
    taken = 0
    cut = ""
    start = time.monotonic()
    try:
        for entry, loops in heats:
            spent = time.monotonic() - start
            if spent > 60 * (settings.minutes or math.inf):
                cut = f"time was up after {taken} of {total} measurements"
                break
            answers = entry.measure(loops, settings.scale, settings.limit)
            spent = time.monotonic() - start
            for loop, answer in answers.items():
                taken += 1
                row = entry.case.rows[0]
                found = answer.get("figures", {}).get(row.key, {})
                figure = f"{report.short(found.get('figure'))} {row.unit}"
                left = spent / taken * (total - taken)
                say(
                    f"[{taken}/{total}] {entry.case.name} {loop} "
                    f"{answer.get('error', figure)} ({left:.0f} s left)"
                )
    except KeyboardInterrupt:
        cut = f"interrupted after {taken} of {total} measurements"
    return [row for entry in entries for row in entry.rows], cut


def count(
    cases: list[Case], loops: list[str], say: Say
) -> dict[str, dict[str, dict[str, float]]]:
    """Return the counts of an operation, by row, loop and kind.

    What cannot be counted is left out: a tool may not know a system call that
    a loop makes.
    """
    found: dict[str, dict[str, dict[str, float]]] = {}

    def one(case: Case) -> None:
        rows = {row.key: row for row in case.rows if not row.aside}
        for loop, kind in product(case.played_on(loops), counts.KINDS):
            with TemporaryDirectory() as folder:
                words = [f"--clock={kind}", f"--folder={folder}"]
                command = [*WORKER, loop, case.name, *words]
                answer = heat.run({loop: command}, COUNT_LIMIT)[loop]
            for key in rows.keys() & answer.get("figures", {}).keys():
                samples = answer["figures"][key]["samples"]
                each = found.setdefault(key, {}).setdefault(loop, {})
                each[kind] = counts.an_operation(samples, rows[key].unit)
            say(f"counted {case.name} {loop} {answer.get('error', '')}")

    # Nothing that runs beside it makes a count differ.
    with ThreadPoolExecutor(2) as pool:
        list(pool.map(one, filter(Case.is_counted, cases)))
    return found
