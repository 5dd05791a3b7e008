"""Takes the measurements, in turns.

Each repetition goes through all cases, and for each case through all loops
one right after the other, a different one first each time: whatever drifts
on the machine drifts for all of them.  Every measurement is a process of
its own, in a process group of its own, so that one which hangs is ended
together with the servers and clients it started.  What fails is noted in
its place and not tried again; the run goes on.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

from harness.case import Case
from harness.loops import C_SERVERS, LOOPS, TRANSPORTS_ONLY

HARNESS = Path(__file__).resolve().parent
PROBE_LIMIT = 20.0


@dataclass
class Settings:
    """How the measurements are taken, as the command line asked."""

    python: str = sys.executable
    repeat: int = 5
    scale: float = 1.0
    clock: str = "wall"
    budget: float | None = None
    case_budget: float | None = None
    limit: float | None = None
    options: dict[str, str] = field(default_factory=dict)


@dataclass
class Results:
    """Every figure taken, by row and loop, every failure, by case, and the
    seconds that each case took."""

    figures: dict[tuple[str, str], list[dict]] = field(default_factory=dict)
    errors: dict[tuple[str, str], str] = field(default_factory=dict)
    seconds: dict[str, float] = field(default_factory=dict)
    cut: str = ""


def run_json(command: list[str], limit: float) -> dict:
    """Run `command`; return the JSON object of its last line.

    A command that fails, hangs for more than `limit` seconds or prints no
    JSON gives an object with the key "error".  Nothing it started stays.
    """
    try:
        process = subprocess.Popen(
            command,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            start_new_session=True,
        )
    except OSError as error:
        return {"error": str(error)}
    try:
        out, err = process.communicate(timeout=limit)
    except subprocess.TimeoutExpired:
        _end_group(process)
        return {"error": f"no answer in {limit:.0f} s"}
    except BaseException:
        _end_group(process)
        raise
    lines = out.strip().splitlines()
    try:
        answer = json.loads(lines[-1])
    except (IndexError, ValueError):
        answer = {"error": _how_it_ended(process.returncode, err)}
    if "error" in answer:
        answer["stderr"] = err[-2000:]
    return answer


def _end_group(process: subprocess.Popen) -> None:
    try:
        os.killpg(process.pid, signal.SIGKILL)
    except ProcessLookupError:
        pass
    process.communicate()


def _how_it_ended(code: int, err: str) -> str:
    if code < 0:
        return f"killed by {signal.Signals(-code).name}"
    last = err.strip().splitlines()[-1:] or ["no output"]
    return f"exit {code}: {last[0]}"


def probe(name: str, python: str) -> dict:
    """Return {"version": ...} of the loop `name`, or {"error": ...}."""
    command = [python, str(HARNESS / "worker.py"), name]
    return run_json(command, PROBE_LIMIT)


def plays(case: Case, loop: str) -> bool:
    """Say whether `case` is measured on `loop`."""
    if case.loops:
        return loop in case.loops
    return loop not in (*C_SERVERS, *TRANSPORTS_ONLY)


def rotated(loops: list[str], by: int) -> list[str]:
    """Return `loops` with another one first for each `by`."""
    by %= max(1, len(loops))
    return loops[by:] + loops[:by]


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
    pairs = sum(plays(case, loop) for case in cases for loop in loops)
    total = pairs * settings.repeat
    done = 0
    end = time.monotonic() + (settings.budget or float("inf"))
    try:
        for repetition in range(settings.repeat):
            for number, case in enumerate(cases):
                players = [loop for loop in loops if plays(case, loop)]
                if _had_its_time(case, repetition, settings, results):
                    done += len(players)
                    continue
                for loop in rotated(players, repetition + number):
                    if time.monotonic() > end:
                        results.cut = (
                            f"time was up after {done} of {total} measurements"
                        )
                        return results
                    answer = _take_one(case, loop, settings, results)
                    done += 1
                    progress(done, total, case, loop, answer)
    except KeyboardInterrupt:
        results.cut = f"interrupted after {done} of {total} measurements"
    return results


def _had_its_time(
    case: Case, repetition: int, settings: Settings, results: Results
) -> bool:
    if not repetition or settings.case_budget is None:
        return False
    spent = results.seconds[case.name]
    return spent + spent / repetition > settings.case_budget


def _take_one(
    case: Case, loop: str, settings: Settings, results: Results
) -> dict:
    if (case.name, loop) in results.errors:
        return {"error": "failed before"}
    command = [
        settings.python,
        str(HARNESS / "worker.py"),
        loop,
        case.name,
        f"--seconds={case.seconds * settings.scale}",
        f"--clock={settings.clock}",
    ]
    for key, value in settings.options.items():
        command.append(f"--option={key}={value}")
    limit = min(case.limit, settings.limit or case.limit)
    start = time.monotonic()
    answer = run_json(command, limit)
    spent = results.seconds.get(case.name, 0.0)
    results.seconds[case.name] = spent + time.monotonic() - start
    if "error" in answer:
        results.errors[case.name, loop] = answer["error"]
    for key, figure in answer.get("figures", {}).items():
        results.figures.setdefault((key, loop), []).append(figure)
    return answer
