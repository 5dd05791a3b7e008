"""`pytest --fastloop-compare`: a test suite, timed on each kind of loop.

The pytest that the user started runs no test.  It starts pytest again for each
loop, with the same arguments and one more, `--fastloop-compare-run`.  That
option tells the run's plugin which loop to use, and the file in which to
record each test's outcome and time.  The runs write to the terminal as usual.
Their records are compared at the end.
"""

from __future__ import annotations

import contextlib
import dataclasses
import json
import os
import signal
import subprocess
import sys
import termios
import time
from collections import Counter
from collections.abc import Iterable, Iterator
from itertools import chain
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import pytest

from fastloop.cli import compare as statistics
from fastloop.cli.commands import wrapped
from fastloop.cli.compare import ENOUGH_ROUNDS, mean
from fastloop.cli.default_loop import USUAL, fault_of, usual_loops
from fastloop.cli.options import aligned
from fastloop.cli.processes import catching, signal_name

__all__ = ["Recorder", "compare"]

_OPTION = "--fastloop-compare"
#: Calls that took fewer seconds say nothing of the loop.
_LEAST_SECONDS = 0.05
#: The most rows of a table of tests, and the least difference for which a test
#: is listed: in seconds, and as a part of its time.
_MOST_ROWS = 10
_LEAST_SPREAD = 0.01
_LEAST_PART = 0.05
_SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
#: Exit statuses that another run would only repeat, and what they mean.
_ENDS = {
    2: "was interrupted",
    4: "could not begin; pytest says above why",
    5: "found no test to run",
}


class Recorder:
    """The plugin of one run: records each test's outcome when it ends."""

    def __init__(self, config: pytest.Config, run: Any, path: str) -> None:
        self._config = config
        self._run = run
        self._path = path

    def _note(self, test: str, outcome: str, value: float) -> None:
        """Append a record; a test may close every fd, so open it each time."""
        with open(self._path, "a", encoding="utf-8") as file:
            file.write(json.dumps([test, outcome, value]) + "\n")

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        """Record a phase; a subtest's time is part of its test's time."""
        whole = type(report) is pytest.TestReport
        status = self._config.hook.pytest_report_teststatus(
            report=report, config=self._config
        )
        outcome = status[0] if whole else "failed" * report.failed
        timed = whole and report.when == "call"
        self._note(report.nodeid, outcome, report.duration if timed else 0.0)

    @pytest.hookimpl(trylast=True)
    def pytest_sessionfinish(self) -> None:
        """Record how many loops were made, with an empty test name."""
        self._note("", "", self._run.made)


@dataclasses.dataclass
class _Run:
    """One run: the outcome of each test and the seconds of its call."""

    kind: str
    seconds: float
    status: int
    round: int
    loops: int = -1  # unknown: the run crashed
    tests: dict[str, tuple[str, float]] = dataclasses.field(
        default_factory=dict
    )

    def read(self, notes: str) -> None:
        """Read the run's records; a crash may have cut the last line."""
        for line in notes.splitlines(keepends=True):
            if not line.endswith("\n"):
                break
            test, outcome, value = json.loads(line)
            before, seconds = self.tests.get(test, ("unfinished", 0.0))
            if not test:
                self.loops = value
            elif outcome and before not in ("failed", "error"):
                self.tests[test] = (outcome, seconds + value)
            else:
                self.tests[test] = (before, seconds + value)

    def calls(self, tests: Iterable[str]) -> float:
        """Return the seconds that the calls of these tests took."""
        return sum(self.tests[test][1] for test in tests)

    def complaint(self) -> str:
        """Return why the run does not count fully, as a sentence, or ""."""
        if self.status < 0:
            name = signal_name(-self.status)
            end = f"was ended by {name}; tests begun: {len(self.tests)}"
        elif self.status > 1:
            end = _ENDS.get(self.status, f"ended with status {self.status}")
        elif self.loops == 0 and self.tests:
            end = "made no event loop, so its times say nothing about one"
        else:
            return ""
        return f"The run on {self.kind} {end}."


# -- running ------------------------------------------------------------------


def compare(config: pytest.Config) -> int:
    """Run the tests on each loop, print the differences, return the status.

    The status is the first status of a run on fastloop that is not 0 (of a run
    on any loop, if fastloop is not among them).  A run that a signal ended
    counts as 128 plus the signal's number.  The status is 2 after Ctrl-C or
    another signal to this process, 4 if a run could not begin and 5 if it
    found no test.  Raises pytest.UsageError for invalid options.
    """
    rounds = config.getoption("fastloop_rounds")
    rounds = 1 if rounds is None else rounds
    if rounds < 1:
        raise pytest.UsageError("--fastloop-rounds must be 1 or more")
    words = list(config.invocation_params.args)
    kinds = _kinds(config.getoption("fastloop_compare"), words)
    plan: list[str] = []
    for index in range(rounds):
        # The first round finds cold caches.  Fastloop, the last by default,
        # goes first there, so that this does not count in its favour.
        plan += kinds if index % 2 else kinds[::-1]
    starter = _Starter()
    runs: list[_Run] = []
    with catching(_SIGNALS, starter.on_signal), TemporaryDirectory() as folder:
        notes = Path(folder, "notes")
        for kind in plan:
            title = f"run {len(runs) + 1} of {len(plan)}, on {kind}"
            print(f"\n== {title} ==", flush=True)
            index = len(runs) // len(kinds)
            runs.append(_run(starter, config, kind, words, notes, index))
            if starter.heard or runs[-1].status in _ENDS:
                break
        print("\n== fastloop compare ==")
        print(*_report(kinds, runs), sep="\n", flush=True)
    if starter.heard:
        return int(pytest.ExitCode.INTERRUPTED)
    if runs[-1].status in _ENDS:
        return runs[-1].status
    telling = [run for run in runs if run.kind == "fastloop"] or runs
    status = next((run.status for run in telling if run.status), 0)
    return status if status >= 0 else 128 - status


def _kinds(asked: str, words: list[str]) -> list[str]:
    """Return the requested kinds of loop, each of which can be made.

    Without "=" the option consumes the next argument, which may be a path of
    tests.  WORDS is changed in place so that the runs get that path.
    """
    if _OPTION in words and asked:
        place = words.index(_OPTION)
        path = asked not in USUAL and os.path.exists(asked.split("::")[0])
        words[place : place + 2] = [f"{_OPTION}=", *([asked] if path else [])]
        asked = "" if path else asked
    kinds = list(dict.fromkeys(asked.split(","))) if asked else usual_loops()
    for kind in kinds:
        if fault := fault_of(kind):
            raise pytest.UsageError(
                f"{_OPTION}: there is no loop {kind!r} ({fault}): name some "
                f"of {', '.join(USUAL)} that are installed"
            )
    if len(kinds) < 2:
        raise pytest.UsageError(f"{_OPTION} needs at least two loops")
    return kinds


def _run(
    starter: _Starter,
    config: pytest.Config,
    kind: str,
    words: list[str],
    notes: Path,
    index: int,
) -> _Run:
    """Start pytest as this process was started, on one kind of loop."""
    given = config.invocation_params
    program = sys.orig_argv[1 : len(sys.orig_argv) - len(given.args)]
    name = os.path.basename("".join(program[-1:])).removeprefix("-m")
    if name not in ("pytest", "py.test"):  # another program calls pytest
        program = ["-m", "pytest"]
    notes.write_text("")
    program += [f"{_OPTION}-run={kind}={notes}", *words]
    begun = time.perf_counter()
    status = starter.run([sys.executable, *program], given.dir)
    run = _Run(kind, time.perf_counter() - begun, status, index)
    run.read(notes.read_text(encoding="utf-8"))
    return run


class _Starter:
    """Starts one process after another; passes signals to the current one."""

    def __init__(self) -> None:
        self.heard: list[int] = []
        self._child: subprocess.Popen[bytes] | None = None

    def on_signal(self, signum: int, frame: object) -> None:
        """Pass the signal on to the child; the third one sends SIGKILL.

        The first Ctrl-C at the terminal reaches the child's process group by
        itself.
        """
        self.heard.append(signum)
        times = len(self.heard)
        typed = times == 1 and signum == signal.SIGINT and _in_foreground()
        if self._child is not None and not typed:
            self._child.send_signal(signal.SIGKILL if times > 2 else signum)

    def run(self, command: list[str], folder: Path) -> int:
        """Run a command to its end and return its status."""
        terminal = None
        with contextlib.suppress(termios.error):
            terminal = termios.tcgetattr(0)
        self._child = subprocess.Popen(command, cwd=folder)
        if self.heard:  # the signal came before there was a child
            self._child.send_signal(self.heard[-1])
        status = self._child.wait()
        self._child = None
        if status < 0 and terminal and _in_foreground():
            termios.tcsetattr(0, termios.TCSADRAIN, terminal)
        return status


def _in_foreground() -> bool:
    """Whether this process's group is the terminal's foreground group."""
    try:
        with open("/dev/tty", "rb") as terminal:
            return os.tcgetpgrp(terminal.fileno()) == os.getpgrp()
    except OSError:
        return False


# -- printing -----------------------------------------------------------------


def _report(kinds: list[str], runs: list[_Run]) -> Iterator[str]:
    """Yield the lines of the whole comparison."""
    complaints = filter(None, (run.complaint() for run in runs))
    yield from map(wrapped, dict.fromkeys(complaints))
    outcomes, timed = {}, {}
    rows = [["loop", "whole run", "tests' calls", "tests"]]
    for kind in kinds:
        found = [run for run in runs if run.kind == kind and run.tests]
        if not found:
            continue
        outcomes[kind] = _outcomes(found)
        # Incomplete runs are timed only if there are no complete ones.
        found = [run for run in found if not run.complaint()] or found
        if any(run.loops for run in found):
            timed[kind] = found
        whole = mean([run.seconds for run in found])
        calls = mean([run.calls(run.tests) for run in found])
        count = Counter(outcomes[kind].values())
        counts = ", ".join(f"{n} {outcome}" for outcome, n in count.items())
        rows.append([kind, f"{whole:.3f} s", f"{calls:.3f} s", counts])
    if not outcomes:
        yield "No test was run, so there is nothing to compare."
        return
    yield from aligned(rows, str.ljust)
    yield from _tests("The outcome is not the same:", _differing(outcomes))
    yield from _tests("The time differs most in:", _apart(timed))
    yield from map(wrapped, _verdicts(timed))


def _verdicts(timed: dict[str, list[_Run]]) -> Iterator[str]:
    """Yield an empty line, and a verdict on each loop but the first."""
    base, *others = sorted(timed, key=lambda kind: kind != "asyncio") or [""]
    if not others:
        return
    yield ""
    rounds = min(len(_rounds(timed[base], timed[kind])) for kind in others)
    if rounds < ENOUGH_ROUNDS:
        yield (
            "These are times and no verdict: that takes "
            f"--fastloop-rounds={ENOUGH_ROUNDS} or more, and complete runs."
        )
        return
    yield "Times are geometric means of the rounds."
    for kind in others:
        yield _verdict(timed[base], timed[kind])


def _rounds(before: list[_Run], now: list[_Run]) -> list[tuple[_Run, _Run]]:
    """Return the runs on two loops of the rounds that have both."""
    found = {run.round: run for run in now}
    return [(run, found[run.round]) for run in before if run.round in found]


def _outcomes(runs: list[_Run]) -> dict[str, str]:
    """Return each test's outcome on one loop; all of them if runs differ."""
    found: dict[str, set[str]] = {}
    for run in runs:
        for test, (outcome, _) in run.tests.items():
            found.setdefault(test, set()).add(outcome)
    return {test: "/".join(sorted(each)) for test, each in found.items()}


def _differing(outcomes: dict[str, dict[str, str]]) -> list[list[str]]:
    """Return rows of the tests whose outcomes differ, after a header row."""
    rows = [[*outcomes, "test"]]
    for test in dict.fromkeys(chain(*outcomes.values())):
        row = [each.get(test, "not run") for each in outcomes.values()]
        if len({*row} - {"not run"}) > 1:
            rows.append([*row, test])
    return rows


def _apart(timed: dict[str, list[_Run]]) -> list[list[str]]:
    """Return rows of the tests whose times differ most, after a header row."""
    rows = []
    for test in _passed([*chain(*timed.values())]):
        times = [
            mean([run.tests[test][1] for run in runs])
            for runs in timed.values()
        ]
        spread = max(times) - min(times)
        if spread > max(_LEAST_SPREAD, _LEAST_PART * max(times)):
            rows.append((spread, [*(f"{t:.3f} s" for t in times), test]))
    return [[*timed, "test"], *(row for _, row in sorted(rows, reverse=True))]


def _passed(runs: list[_Run]) -> list[str]:
    """Return the tests that passed in every one of these runs."""
    passed = [
        [test for test, (how, _) in run.tests.items() if how == "passed"]
        for run in runs
    ]
    return [t for t, n in Counter(chain(*passed)).items() if n == len(runs)]


def _verdict(before: list[_Run], now: list[_Run]) -> str:
    """Return how much faster one loop was, or that there is no difference."""
    tests = _passed(before + now)
    base, kind = before[0].kind, now[0].kind
    over = f"over {len(tests)} {'test' if len(tests) == 1 else 'tests'}"
    pairs = _rounds(before, now)
    old, new = (
        [run.calls(tests) for run in runs] for runs in zip(*pairs, strict=True)
    )
    found = statistics.compare(new, old, "less")
    if found is None or max(mean(old), mean(new)) < _LEAST_SECONDS:
        return f"{kind} and {base}: the calls are too short {over}."
    did, option = "is {} as fast as", "--fastloop-rounds"
    return f"{found.verdict(kind, did, base, option)} {over}."


def _tests(title: str, rows: list[list[str]]) -> Iterator[str]:
    """Yield a table of tests, if any; the first row is the header."""
    if len(rows) > 1:
        yield f"\n{title}"
        yield from aligned(rows[: _MOST_ROWS + 1], str.ljust)
    if len(rows) > _MOST_ROWS + 1:
        yield f"and {len(rows) - _MOST_ROWS - 1} more"
