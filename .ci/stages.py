"""Runs sessions of noxfile.py, three at a time, and prints their results.

nox runs sessions one after the other; this runs a nox for each.  A selected
stage that has no result counts as failed.  A test that failed once and then
passed is named at the end as unsteady (flaky), to be mended.
"""

import argparse
import collections
import json
import os
import re
import signal
import subprocess
import sys
import threading
import time
import xml.etree.ElementTree as ElementTree
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
# The part whose stages measure, and so run one by one.
ALONE = "load"
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
    result: str = "did not run"
    note: str = ""
    seconds: float = 0.0
    counts: collections.Counter[str] = field(
        default_factory=collections.Counter
    )
    skips: collections.Counter[str] = field(
        default_factory=collections.Counter
    )
    unsteady: list[str] = field(default_factory=list)

    def run(self) -> None:
        say(f"{self.name}: {self.what}")
        log = LOGS / f"{self.name}.log"
        report = LOGS / f"{self.name}.xml"
        report.unlink(missing_ok=True)
        began = time.monotonic()
        code = run_group([*NOX, "-s", self.name], log, LIMIT)
        self.seconds = time.monotonic() - began
        text = log.read_text(errors="replace")
        self.unsteady = re.findall(r"(?m)^RERUN (.*)\nPASSED \1$", text)
        if self.unsteady:
            self.note = f"{len(self.unsteady)} unsteady"
        if code == 124:
            self.note = f"stopped after {LIMIT // 60} minutes"
        elif code:
            self.note = f"see {log}"
        self.result = "FAILED" if code else "ok"
        if report.exists():
            self.read(report)
        elif "-m pytest" in text:
            self.fail("no report of the tests")
        if self.result != "ok":
            print("\n".join(text.splitlines()[-60:]), flush=True)
        say(f"{self.name}: {self.result} {self.note}")

    def fail(self, note: str) -> None:
        self.result = "FAILED"
        self.note = self.note or note

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
                    self.read_skip(child)
                    outcomes[place] = "skipped"
        self.counts.update(outcomes.values())
        if not self.counts["passed"]:
            self.fail("no test ran")

    def read_skip(self, skip: ElementTree.Element) -> None:
        reason = skip.get("message") or "no reason"
        if skip.get("type") != "pytest.xfail":
            self.skips[re.sub(r"\s+", " ", reason)] += 1
        if self.name in ("interop", "upstream"):
            self.fail(f"skipped here, where none may be: {reason}")


def say(text: str) -> None:
    print(f"ci: {time.strftime('%H:%M:%S')} {text}", flush=True)


def run_group(command: list[str], log: Path, seconds: float) -> int:
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
        return child.wait(seconds)
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


def table(rows: list[Stage]) -> str:
    head = f"{'stage':<18}{'what':<30}{'result':<13}"
    head += f"{'passed':>7}{'failed':>7}{'skipped':>8}{'time':>8}"
    lines = [head, "-" * len(head)]
    reasons = collections.defaultdict(list)
    for row in rows:
        lines.append(
            f"{row.name:<18}{row.what:<30}{row.result:<13}"
            f"{row.counts['passed']:>7}{row.counts['failed']:>7}"
            f"{row.counts['skipped']:>8}{row.seconds:>7.0f}s"
            + f"  {row.note}"
            * bool(row.note)
        )
        for reason, count in row.skips.items():
            reasons[reason].append(f"{row.name}: {count}")
    unsteady = [f"  {row.name}: {one}" for row in rows for one in row.unsteady]
    if unsteady:
        head = "unsteady (failed, then passed), to be mended:"
        lines += ["", head, *unsteady]
    if reasons:
        lines += ["", "skipped, and why:"]
        for reason, where in sorted(reasons.items()):
            lines.append(f"  {reason} ({', '.join(where)})")
    return "\n".join(lines)


def closing_line(rows: list[Stage], seconds: float) -> str:
    """One line that sums all stages up, as pytest words it."""
    total: collections.Counter[str] = collections.Counter()
    for row in rows:
        total += row.counts
        total["rerun"] += len(row.unsteady)
        # A stage that has no tests, or failed beside them, counts as one.
        if row.result != "ok":
            total["failed"] += not row.counts["failed"]
        elif not row.counts:
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
    parts = list(dict.fromkeys(row.part for row in stages))
    parser = argparse.ArgumentParser(prog=".ci/run")
    which = parser.add_mutually_exclusive_group()
    which.add_argument("--gate", nargs="*", metavar="PART", choices=parts[1:])
    which.add_argument(
        "--only",
        nargs="+",
        metavar="NAME",
        choices=[row.name for row in stages],
    )
    which.add_argument("--list", action="store_true")
    options = parser.parse_args()
    if options.list:
        for row in stages:
            print(f"{row.name:<18}{row.part:<16}{row.what}")
        return 0
    if options.gate is not None:
        parts = options.gate or parts[1:]
    elif not options.only:
        parts = [""]
    rows = [
        row
        for row in stages
        if (row.name in options.only if options.only else row.part in parts)
    ]
    LOGS.mkdir(parents=True, exist_ok=True)
    for signum in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
        signal.signal(signum, on_end_signal)
    began = time.monotonic()
    # Each part builds the extension in its own way, and so runs by itself.
    for part in parts:
        with ThreadPoolExecutor(1 if part == ALONE else JOBS) as pool:
            list(pool.map(Stage.run, [r for r in rows if r.part == part]))
    text = f"{table(rows)}\n\nnot run here: {ELSEWHERE}\nlogs: {LOGS}\n"
    (LOGS / "table.txt").write_text(text)
    print(
        f"\n{text}{closing_line(rows, time.monotonic() - began)}", flush=True
    )
    return 0 if all(row.result == "ok" for row in rows) else 1


if __name__ == "__main__":
    sys.exit(main())
