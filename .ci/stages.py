"""Runs sessions of noxfile.py, three at a time, and prints their results.

nox runs sessions one after the other; this runs a nox for each.  A selected
stage that has no result counts as failed.  A test that failed once and then
passed is named at the end as unsteady (flaky), to be mended.
"""

import argparse
import json
import os
import re
import signal
import subprocess
import sys
import textwrap
import threading
import time
import xml.etree.ElementTree as ElementTree
from collections import Counter, defaultdict
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path

TOP = Path(__file__).resolve().parent.parent
LOGS = TOP / "build" / "ci"
NOX = [sys.executable, "-m", "nox", "-f", str(TOP / "noxfile.py")]
# Platforms that only .github/workflows/wheels.yml tests.
ELSEWHERE = "arm64 without qemu, riscv64, musl, macOS"
# Seconds of a stage: a limit for what hangs.
LIMIT = 90 * 60
# On two cores: a third of a stage's time is waiting.
JOBS = 3
# Runs in which none may skip a test, because all that they need is installed.
COMPLETE = ("interop.3.11", "upstream.3.11")
COLUMNS = 80
# The process groups of what runs now.
LIVE: set[int] = set()
# Set when the run itself is ended: no stage begins any more.
ENDED = threading.Event()


@dataclass
class Stage:
    """One line of the table."""

    name: str
    what: str
    part: str = ""  # of the gate
    result: str = "not run"
    notes: list[str] = field(default_factory=list)
    seconds: float = 0.0
    counts: Counter[str] = field(default_factory=Counter)
    skips: Counter[str] = field(default_factory=Counter)
    unsteady: list[str] = field(default_factory=list)

    def run(self) -> None:
        say(f"{self.name}: {self.what}")
        log = LOGS / f"{self.name}.log"
        for old in LOGS.glob(f"{self.name}.*.xml"):
            old.unlink()
        began = time.monotonic()
        code = run_group([*NOX, "-s", self.name], log)
        self.seconds = time.monotonic() - began
        text = log.read_text(errors="replace")
        self.unsteady = re.findall(r"(?m)^RERUN (.*)\nPASSED \1$", text)
        self.notes += re.findall(r" aborted: (failed: .*)\.", text)
        if code == 124:
            self.notes.append(f"stopped after {LIMIT // 60} minutes")
        for report in sorted(LOGS.glob(f"{self.name}.*.xml")):
            self.read(report)
        self.result = "FAILED" if code or self.notes else "ok"
        if self.result == "FAILED":
            self.notes.append(f"see {log.relative_to(TOP)}")
            print("\n".join(text.splitlines()[-60:]), flush=True)
        say(f"{self.name}: {self.result} {'; '.join(self.notes)}")

    def read(self, report: Path) -> None:
        outcomes: dict[tuple[str, str], str] = {}
        for case in ElementTree.parse(report).iter("testcase"):
            place = case.get("classname", ""), case.get("name", "")
            # A test that was run again is there twice, once without outcome.
            outcomes.setdefault(place, "passed")
            for child in case:
                if child.tag in ("failure", "error"):
                    outcomes[place] = "failed"
                elif child.tag == "skipped":
                    outcomes[place] = "skipped"
                    if child.get("type") != "pytest.xfail":
                        reason = child.get("message") or "no reason"
                        self.skips[" ".join(reason.split())] += 1
                    if report.stem in COMPLETE:
                        self.notes.append(f"{report.stem}: {place[1]} skipped")
        self.counts.update(outcomes.values())
        if "passed" not in outcomes.values():
            self.notes.append(f"{report.stem}: no test ran")

    def rows(self) -> list[str]:
        counts = (self.counts[key] for key in ("passed", "failed", "skipped"))
        row = f"{self.name:<15}{self.what:<30}{self.result:<8}"
        row += "{:>7}{:>7}{:>8}".format(*counts)
        return [f"{row}{self.seconds:>4.0f}s", *map(indented, self.notes)]


def indented(text: str) -> str:
    return textwrap.fill(
        text, COLUMNS, initial_indent="  ", subsequent_indent="    "
    )


def say(text: str) -> None:
    # One write: threads would mix their lines.
    print(f"ci: {time.strftime('%H:%M:%S')} {text}\n", end="", flush=True)


def run_group(command: list[str], log: Path) -> int:
    """The exit status, 124 when time ran out; nothing outlives the command."""
    if ENDED.is_set():
        return 124
    with open(log, "wb") as out:
        child = subprocess.Popen(
            command,
            cwd=TOP,
            stdin=subprocess.DEVNULL,
            stdout=out,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
    LIVE.add(child.pid)
    try:
        return child.wait(LIMIT)
    except subprocess.TimeoutExpired:
        return 124
    finally:
        kill(child.pid)
        child.wait()
        LIVE.discard(child.pid)


def kill(group: int) -> None:
    for signum in (signal.SIGTERM, signal.SIGKILL):
        try:
            os.killpg(group, signum)
        except ProcessLookupError:
            return
        time.sleep(0.5)


def on_end_signal(signum: int, frame: object) -> None:
    """Kill the stages that run, and exit."""
    ENDED.set()
    for group in list(LIVE):
        kill(group)
    os._exit(128 + signum)


def table(stages: list[Stage]) -> str:
    head = f"{'stage':<15}{'what':<30}{'result':<8}"
    head += f"{'passed':>7}{'failed':>7}{'skipped':>8}{'time':>5}"
    lines = [head, "-" * len(head)]
    reasons = defaultdict(list)
    for one in stages:
        lines += one.rows()
        for reason, count in one.skips.items():
            reasons[reason].append(f"{one.name}: {count}")
    if any(one.unsteady for one in stages):
        lines += ["", "unsteady (failed, then passed), to be mended:"]
        lines += [f"  {one.name}: {t}" for one in stages for t in one.unsteady]
    if reasons:
        lines += ["", "skipped, and why:"]
        for reason, where in sorted(reasons.items()):
            lines.append(indented(f"{reason} ({', '.join(where)})"))
    return "\n".join(lines)


def closing_line(stages: list[Stage], seconds: float) -> str:
    """One line that sums all stages up, as pytest words it."""
    total: Counter[str] = Counter()
    for one in stages:
        total += one.counts
        total["rerun"] += len(one.unsteady)
        # A stage that has no tests, or failed beside them, counts as one.
        if one.result != "ok":
            total["failed"] += not one.counts["failed"]
        elif not one.counts:
            total["passed"] += 1
    kinds = ("failed", "passed", "skipped", "rerun")
    words = ", ".join(f"{total[kind]} {kind}" for kind in kinds if total[kind])
    return f"===== {words or 'no tests ran'} in {seconds:.2f}s ====="


def every_stage() -> list[Stage]:
    done = subprocess.run(
        [*NOX, "--list", "--json"], capture_output=True, text=True, check=True
    )
    return [
        Stage(row["session"], row["description"], *row["tags"])
        for row in json.loads(done.stdout)
    ]


def main() -> int:
    stages = every_stage()
    parts = list(dict.fromkeys(one.part for one in stages))
    names = [one.name for one in stages]
    parser = argparse.ArgumentParser(prog=".ci/run")
    which = parser.add_mutually_exclusive_group()
    which.add_argument("--gate", nargs="*", metavar="PART", choices=parts[1:])
    which.add_argument("--only", nargs="+", metavar="NAME", choices=names)
    which.add_argument("--list", action="store_true")
    options = parser.parse_args()
    if options.list:
        for one in stages:
            print(f"{one.name:<15}{one.part:<16}{one.what}")
        return 0
    if options.only:
        stages = [one for one in stages if one.name in options.only]
    else:
        gate = options.gate
        parts = [""] if gate is None else gate or parts[1:]
        stages = [one for one in stages if one.part in parts]
    LOGS.mkdir(parents=True, exist_ok=True)
    for signum in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
        signal.signal(signum, on_end_signal)
    began = time.monotonic()
    # Each part builds the extension in its own way, and so runs by itself.
    for part in parts:
        with ThreadPoolExecutor(JOBS) as pool:
            list(pool.map(Stage.run, [s for s in stages if s.part == part]))
    text = f"{table(stages)}\n\nnot run here: {ELSEWHERE}\n"
    text += f"logs: {LOGS}\n"
    (LOGS / "table.txt").write_text(text)
    spent = time.monotonic() - began
    print(f"\n{text}{closing_line(stages, spent)}", flush=True)
    return 0 if all(one.result == "ok" for one in stages) else 1


if __name__ == "__main__":
    sys.exit(main())
