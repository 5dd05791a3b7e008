"""Runs the stages of stages.toml, three at a time, and prints their results.

A selected stage that has no result counts as failed.  A test that failed once
and then passed is named at the end as unsteady (flaky), to be mended.

An environment is made by tools/setup-env.  Debian 12 lacks 3.14 and 3.15: they
run inside a Debian tree of their own (.ci/pythons).  The extension is built in
place, so all stages of a part build it for one Python with the same options.
"""

import argparse
import datetime
import os
import re
import shlex
import signal
import subprocess
import sys
import textwrap
import threading
import time
import tomllib
import xml.etree.ElementTree as ElementTree
from collections import Counter, defaultdict
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, BinaryIO

TOP = Path(__file__).resolve().parent.parent
LOGS = TOP / "build" / "ci"
STAGES = tomllib.loads((TOP / ".ci" / "stages.toml").read_text("utf-8"))
WORDS = {key: " ".join(v.split()) for key, v in STAGES.pop("words").items()}
ENV: dict[str, dict[str, str]] = STAGES.pop("env")
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
# Set when the run itself is ended: nothing begins any more.
ENDED = threading.Event()


def files(*patterns: str) -> list[str]:
    """The paths of those in tests/ that match."""
    found = (p for one in patterns for p in sorted(TOP.glob(f"tests/{one}")))
    return [str(path.relative_to(TOP)) for path in found]


# What ThreadSanitizer looks at; the rest has one thread, or starts processes,
# whose threads are others' to look at.
THREADED = [
    path
    for path in files(
        "behaviour/**/test_*.py", "isolated/test_*.py", "unit/**/test_*.py"
    )
    if not re.search("/(cli|package)/", path)
    and re.search("threading|to_thread|[Ee]xecutor", (TOP / path).read_text())
]
# A test is run at least five times for its references: all files take eight
# hours, so each day has its share of them.
SHARES = 20
TODAY = datetime.date.today().toordinal() % SHARES
COUNTED = [
    path
    for path in files("behaviour/*/test_*.py")
    if "/test_pytest_" not in path
]
WORDS |= {
    "LOGS": str(LOGS),
    "THREADED": " ".join(THREADED[0::2]),
    "THREADED_REST": " ".join(THREADED[1::2]),
    "COUNTED_TODAY": " ".join(COUNTED[TODAY::SHARES]),
}


def filled(text: str) -> str:
    """A command with what its {WORDS} stand for."""
    return re.sub(r"{(\w+)}", lambda found: filled(WORDS[found[1]]), text)


@dataclass
class Stage:
    """A table of stages.toml, and its line in the table of results."""

    part: str
    name: str
    about: str
    run: dict[str, Any]
    needs: str = "test"
    env: dict[str, str] = field(default_factory=dict)
    result: str = "not run"
    notes: list[str] = field(default_factory=list)
    seconds: float = 0.0
    counts: Counter[str] = field(default_factory=Counter)
    skips: Counter[str] = field(default_factory=Counter)
    unsteady: list[str] = field(default_factory=list)

    def do(self) -> None:
        """Do all of its runs, also after one that failed."""
        say(f"{self.name}: {self.about}")
        path = LOGS / f"{self.name}.log"
        for old in LOGS.glob(f"{self.name}.*.xml"):
            old.unlink()
        began = time.monotonic()
        shown = b""
        with open(path, "wb", buffering=0) as log:
            for label, commands in self.run.items():
                start = log.tell()
                if not self.passes(label, commands, log, began + LIMIT):
                    self.notes.append(f"{label} failed")
                    lines = path.read_bytes()[start:].splitlines(True)
                    shown += b"".join(lines[-60:])
        self.seconds = time.monotonic() - began
        text = path.read_text(errors="replace")
        self.unsteady = re.findall(r"(?m)^RERUN (.*)\nPASSED \1$", text)
        for report in sorted(LOGS.glob(f"{self.name}.*.xml")):
            self.read(report)
        self.result = "FAILED" if self.notes else "ok"
        if self.notes:
            self.notes.append(f"see {path.relative_to(TOP)}")
            print(shown.decode(errors="replace"), flush=True)
        say(f"{self.name}: {self.result} {'; '.join(self.notes)}")

    def passes(
        self, label: str, run: str | list[str], log: BinaryIO, end: float
    ) -> bool:
        """Whether one of its runs passes, and has a report of its tests."""
        python = label.split()[0]
        venv = ".venv" if python == "3.11" else f".venv-{python}"
        report = LOGS / f"{self.name}.{label.replace(' ', '-')}.xml"
        env = {**ENV["every"], **ENV.get(python, {}), **self.env}
        env |= {"VENV": venv, "PYTEST_ADDOPTS": f"--junitxml={report}"}
        commands = [run] if isinstance(run, str) else run
        prefix = [".ci/pythons", python]
        if python != "newcomer":
            prefix = [".ci/pythons", "run", python]
            env["PYTEST_ADDOPTS"] += (
                f" -raR {filled('{AGAIN}')} -p no:cacheprovider -o "
                f"faulthandler_timeout={2 * int(env['PYTEST_TIMEOUT'])} "
                + os.environ.get("PYTEST_ADDOPTS", "")
            )
            commands = [f"tools/setup-env build {self.needs}", *commands]
        for command in commands:
            text = filled(command).replace("REPORT", str(report))
            text = re.sub("^python ", f"{venv}/bin/python ", text)
            words = [*prefix, *shlex.split(text)]
            log.write(f"ci: {shlex.join(words)}\n".encode())
            if code := run_group(words, env, log, end - time.monotonic()):
                log.write(f"ci: {label} ended with {code}\n".encode())
                return False
        has_tests = re.search("-m pytest|^make (test|lint)", text)
        return report.exists() or not has_tests

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
        row = f"{self.name:<15}{self.about:<30}{self.result:<8}"
        row += "{:>7}{:>7}{:>8}".format(*counts)
        return [f"{row}{self.seconds:>4.0f}s", *map(indented, self.notes)]


def indented(text: str) -> str:
    return textwrap.fill(
        text, COLUMNS, initial_indent="  ", subsequent_indent="    "
    )


def say(text: str) -> None:
    # One write: threads would mix their lines.
    print(f"ci: {time.strftime('%H:%M:%S')} {text}\n", end="", flush=True)


def run_group(
    command: list[str], env: dict[str, str], log: BinaryIO, seconds: float
) -> int:
    """The exit status, 124 when time ran out; nothing outlives the command."""
    if ENDED.is_set() or seconds <= 0:
        return 124
    child = subprocess.Popen(
        command,
        cwd=TOP,
        env={**os.environ, **env},
        stdin=subprocess.DEVNULL,
        stdout=log,
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


def main() -> int:
    stages = [
        Stage(part, name, **fields)
        for part, named in STAGES.items()
        for name, fields in named.items()
    ]
    parts = list(STAGES)
    names = [one.name for one in stages]
    parser = argparse.ArgumentParser(prog=".ci/run")
    which = parser.add_mutually_exclusive_group()
    which.add_argument("--gate", nargs="*", metavar="PART", choices=parts[1:])
    which.add_argument("--only", nargs="+", metavar="NAME", choices=names)
    which.add_argument("--list", action="store_true")
    options = parser.parse_args()
    if options.list:
        for one in stages:
            print(f"{one.name:<15}{one.part:<16}{one.about}")
        return 0
    if options.only:
        stages = [one for one in stages if one.name in options.only]
    else:
        gate = options.gate
        parts = ["change"] if gate is None else gate or parts[1:]
        stages = [one for one in stages if one.part in parts]
    LOGS.mkdir(parents=True, exist_ok=True)
    for signum in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
        signal.signal(signum, on_end_signal)
    began = time.monotonic()
    # Each part builds the extension in its own way, and so runs by itself.
    for part in parts:
        with ThreadPoolExecutor(JOBS) as pool:
            list(pool.map(Stage.do, [s for s in stages if s.part == part]))
    text = f"{table(stages)}\n\nnot run here: {ELSEWHERE}\n"
    text += f"logs: {LOGS}\n"
    (LOGS / "table.txt").write_text(text)
    spent = time.monotonic() - began
    print(f"\n{text}{closing_line(stages, spent)}", flush=True)
    return 0 if all(one.result == "ok" for one in stages) else 1


if __name__ == "__main__":
    sys.exit(main())
