"""Takes the measurements, with the loops alternating.

Each repetition goes through all cases.  The loops of a case alternate sample
by sample (`heat.py`), a different one first each time: whatever drifts on
the machine drifts for all of them.  Every measurement is a process of its
own, in a process group of its own, so that one which hangs or crashes is
ended together with the servers and clients it started.  What fails is noted
in its place and not tried again; the run goes on.

A case has some more repetitions where its result is inconclusive.
"""

from __future__ import annotations

import sys
import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from itertools import product
from pathlib import Path
from tempfile import TemporaryDirectory

from fastloop.cli.compare import mean, of_ratios, times_as_good
from harness import counts, heat
from harness.case import Case, Row
from harness.loops import LOOPS, TRANSPORTS_ONLY

HARNESS = Path(__file__).resolve().parent
PROBE_LIMIT = 20.0
COUNT_LIMIT = 120.0
# A ratio over the best peer from which on the two are called even: so far do
# runs differ.
EVEN = 0.97


@dataclass
class Settings:
    """How the measurements are taken, as the command line asked."""

    repeat: int = 5
    more: int = 0
    scale: float = 1.0
    budget: float | None = None
    case_budget: float | None = None
    limit: float | None = None
    options: dict[str, str] = field(default_factory=dict)


@dataclass
class Results:
    """Every figure taken, by row and loop, every failure, by case, the
    seconds that each case took, how often it was measured, and how many
    measurements were left out."""

    figures: dict[tuple[str, str], list[dict]] = field(default_factory=dict)
    errors: dict[tuple[str, str], str] = field(default_factory=dict)
    seconds: dict[str, float] = field(default_factory=dict)
    turns: Counter[str] = field(default_factory=Counter)
    left_out: int = 0
    cut: str = ""


def run_json(command: list[str], limit: float) -> dict:
    """Run `command`; return the JSON object of its first line.

    A command that fails, hangs for more than `limit` seconds or prints no
    JSON gives an object with the key "error".  Nothing it started stays.
    """
    return heat.run({"": command}, limit)[""]


def probe(name: str) -> dict:
    """Return {"version": ...} of the loop `name`, or {"error": ...}."""
    command = [sys.executable, str(HARNESS / "worker.py"), name]
    return run_json(command, PROBE_LIMIT)


def plays(case: Case, loop: str) -> bool:
    """Say whether `case` is measured on `loop`."""
    if case.loops:
        return loop in case.loops
    return loop not in TRANSPORTS_ONLY


def take(
    cases: list[Case],
    loops: list[str],
    settings: Settings,
    progress: Callable[[int, int, Case, str, dict], None],
) -> Results:
    """Take all measurements; return what was taken.

    A KeyboardInterrupt, or the end of `settings.budget` seconds, ends the
    run early; what was taken until then is returned and `cut` says why.
    A case is not repeated once more would take it past
    `settings.case_budget` seconds.  `progress` is called after each
    measurement.
    """
    results = Results()
    loops = [name for name in LOOPS if name in loops]
    total = (settings.repeat + settings.more) * sum(
        case.rounds * plays(case, loop) for case in cases for loop in loops
    )
    taken = 0
    end = time.monotonic() + (settings.budget or float("inf"))
    try:
        for case, players in _heats(cases, loops, settings, results):
            if time.monotonic() > end:
                results.cut = (
                    f"time was up after {taken} of {total} measurements"
                )
                break
            answers = _take_heat(case, players, settings, results)
            for loop, answer in answers.items():
                taken += 1
                progress(taken + results.left_out, total, case, loop, answer)
    except KeyboardInterrupt:
        results.cut = f"interrupted after {taken} of {total} measurements"
    return results


def _heats(
    cases: list[Case], loops: list[str], settings: Settings, results: Results
) -> Iterator[tuple[Case, list[str]]]:
    """Yield each case with the loops that are measured together, as far as
    it has time and `results` leave it open."""
    for repetition in range(settings.repeat + settings.more):
        is_more = repetition >= settings.repeat
        for number, case in enumerate(cases):
            players = [loop for loop in loops if plays(case, loop)]
            if _had_its_time(case, repetition, settings, results) or (
                is_more and is_certain(case, results)
            ):
                results.left_out += case.rounds * len(players)
                continue
            for in_case in range(case.rounds):
                first = repetition * case.rounds + in_case + number
                yield case, heat.rotated(players, first)


def paired(own: dict, base: dict, better: str) -> float:
    """Return how many times as good as base the figure own is.

    Samples that were taken in turns are compared one by one.
    """
    pairs = [(own["figure"], base["figure"])]
    samples = own.get("samples", ()), base.get("samples", ())
    if len(samples[0]) == len(samples[1]) > 1:
        pairs = list(zip(*samples, strict=True))
    return mean([times_as_good(a, b, better) for a, b in pairs if a > 0 < b])


def ratios(
    own: Iterable[dict], base: Iterable[dict], better: str
) -> list[float]:
    """Return how many times as good as base own is, by repetition.

    One of the two may have failed in some.
    """
    mine, theirs = (
        {one.get("turn", place): one for place, one in enumerate(figures)}
        for figures in (own, base)
    )
    both = (turn for turn in mine if turn in theirs)
    return [paired(mine[turn], theirs[turn], better) for turn in both]


def is_certain(case: Case, results: Results) -> bool:
    """Say whether the result of each row of `case` is conclusive."""
    judged = [row for row in case.rows if not row.aside]
    return all(_is_certain(case, row, results) for row in judged)


def _is_certain(case: Case, row: Row, results: Results) -> bool:
    each = _figures(case, row, results)
    own = each.pop("fastloop", [])
    if not own or not each:
        return True
    # Against the best of the others.
    found = [ratios(own, other, row.better) for other in each.values()]
    found = of_ratios(min(found, key=mean))
    return found is not None and (found.sure or found.is_within(EVEN))


def _figures(case: Case, row: Row, results: Results) -> dict[str, list[dict]]:
    """Return the figures of each loop that did not fail: few may have been
    lucky."""
    return {
        name: figures
        for (key, name), figures in results.figures.items()
        if key == row.key and (case.name, name) not in results.errors
    }


def _had_its_time(
    case: Case, repetition: int, settings: Settings, results: Results
) -> bool:
    if not repetition or settings.case_budget is None:
        return False
    spent = results.seconds.get(case.name, 0.0)
    return spent + spent / repetition > settings.case_budget


def _worker(
    case: Case, loop: str, settings: Settings, *words: str
) -> list[str]:
    """Return the command of a worker."""
    command = [sys.executable, str(HARNESS / "worker.py"), loop, case.name]
    options = [f"--option={k}={v}" for k, v in settings.options.items()]
    return [*command, *words, *options]


def count(
    cases: list[Case],
    loops: list[str],
    settings: Settings,
    progress: Callable[[Case, str, dict], None],
) -> dict[str, dict[str, dict[str, float]]]:
    """Return the counts of an operation, by row, loop and kind.

    What cannot be counted is left out: a tool may not know a system call that
    a loop makes.  `progress` is called after each case and loop.
    """
    found: dict[str, dict[str, dict[str, float]]] = {}

    def one(case: Case) -> None:
        rows = {row.key: row for row in case.rows if not row.aside}
        players = [loop for loop in loops if plays(case, loop)]
        for loop, kind in product(players, counts.KINDS):
            with TemporaryDirectory() as folder:
                words = f"--clock={kind}", f"--folder={folder}"
                command = _worker(case, loop, settings, *words)
                answer = run_json(command, COUNT_LIMIT)
            for key in rows.keys() & answer.get("figures", {}).keys():
                samples = answer["figures"][key]["samples"]
                each = found.setdefault(key, {}).setdefault(loop, {})
                each[kind] = counts.an_operation(samples, rows[key].unit)
            progress(case, loop, answer)

    # Nothing that runs beside it makes a count differ.
    with ThreadPoolExecutor(2) as pool:
        list(pool.map(one, filter(Case.is_counted, cases)))
    return found


def _take_heat(
    case: Case, loops: list[str], settings: Settings, results: Results
) -> dict[str, dict]:
    """Measure a case on these loops; return and store their answers."""
    limit = min(case.limit, settings.limit or case.limit)
    answers = {
        loop: {"error": "failed before"}
        for loop in loops
        if (case.name, loop) in results.errors
    }
    commands = {
        loop: _worker(
            case,
            loop,
            settings,
            f"--seconds={case.seconds * settings.scale}",
            "--pause",
        )
        for loop in loops
        if loop not in answers
    }
    start = time.monotonic()
    try:
        found = heat.run(commands, limit)
    except OSError as error:  # no process could be started
        found = {loop: {"error": str(error)} for loop in commands}
    spent = results.seconds.get(case.name, 0.0)
    results.seconds[case.name] = spent + time.monotonic() - start
    results.turns[case.name] += 1
    for loop, answer in found.items():
        if "error" in answer:
            line = " ".join(answer["error"].split())
            results.errors[case.name, loop] = line.removesuffix(":")
        for key, figure in answer.get("figures", {}).items():
            figure["turn"] = results.turns[case.name]
            results.figures.setdefault((key, loop), []).append(figure)
    return answers | found
