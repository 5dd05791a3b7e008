"""`pytest --fastloop-compare`: somebody's tests, timed on each kind of loop.

The pytest that was asked runs no test.  It starts itself again for each loop,
with the same words and one more, `--fastloop-compare-run`: by that the plugin
of that run takes its loop and notes each test's outcome and time in a file.
The runs write to the terminal as ever; what they noted is compared at the end.
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
from importlib.util import find_spec
from itertools import chain
from pathlib import Path
from statistics import median
from tempfile import TemporaryDirectory
from typing import Any

import pytest

from .cli.adopt import factory_of
from .cli.processes import signal_name

__all__ = ["Recorder", "compare"]

_OPTION = "--fastloop-compare"
_KNOWN = ["asyncio", "uvloop", "fastloop"]
#: A smaller part is taken for chance, with three rounds and with fewer; so are
#: calls of fewer seconds.
_LEAST_PART = 0.05
_LEAST_PART_OF_FEW = 0.2
_LEAST_SECONDS = 0.05
#: The rows of a list of tests; a test's times are told from this spread on.
_MOST_ROWS = 10
_LEAST_SPREAD = 0.01
#: How a run ended after which another would end alike.
_ENDS = {
    2: "was interrupted",
    4: "could not begin; pytest says above why",
    5: "found no test to run",
}


class Recorder:
    """The plugin of one run: it notes what each test did, as it does it."""

    def __init__(self, config: pytest.Config, run: Any, path: str) -> None:
        self._config = config
        self._run = run
        self._path = path

    def _note(self, test: str, outcome: str, number: float) -> None:
        """Open it each time: a test may close every descriptor."""
        with open(self._path, "a", encoding="utf-8") as file:
            file.write(json.dumps([test, outcome, number]) + "\n")

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        """Note a phase; the time of a subtest is in its test's already."""
        whole = type(report) is pytest.TestReport
        status = self._config.hook.pytest_report_teststatus(
            report=report, config=self._config
        )
        outcome = status[0] if whole else "failed" * report.failed
        timed = whole and report.when == "call"
        self._note(report.nodeid, outcome, report.duration if timed else 0.0)

    @pytest.hookimpl(trylast=True)
    def pytest_sessionfinish(self) -> None:
        """Note how many loops were made, under no test's name."""
        self._note("", "", self._run.made)


@dataclasses.dataclass
class _Run:
    """One run: of each test the outcome and the seconds of its call."""

    kind: str
    seconds: float
    status: int
    loops: int = -1  # not known, for a run that crashed
    tests: dict[str, tuple[str, float]] = dataclasses.field(
        default_factory=dict
    )

    def read(self, notes: str) -> None:
        """Take what the run noted, as far as it came."""
        for line in notes.splitlines(keepends=True):
            if not line.endswith("\n"):
                break
            test, outcome, number = json.loads(line)
            before, seconds = self.tests.get(test, ("unfinished", 0.0))
            if not test:
                self.loops = number
            elif outcome and before not in ("failed", "error"):
                self.tests[test] = (outcome, seconds + number)
            else:
                self.tests[test] = (before, seconds + number)

    def calls(self, tests: Iterable[str]) -> float:
        """The seconds that the calls of some tests took."""
        return sum(self.tests[test][1] for test in tests)

    def complaint(self) -> str:
        """Why it does not count as others do, in a sentence, or ""."""
        if self.status < 0:
            name = signal_name(-self.status)
            end = f"was ended by {name}; tests begun: {len(self.tests)}"
        elif self.status > 1:
            end = _ENDS.get(self.status, f"ended with status {self.status}")
        elif self.loops == 0 and self.tests:
            end = "made no event loop and tells nothing of it"
        else:
            return ""
        return f"The run on {self.kind} {end}."


# -- running ------------------------------------------------------------------


def compare(config: pytest.Config) -> int:
    """Run the tests on each loop, print what differs, return the status.

    It is that of the first run on fastloop that was not 0 (on any loop, if
    fastloop is not among them), with 128 and the number of a signal that ended
    it; but 2 after Ctrl-C, and 4 or 5 if no run could begin or found a test.
    Raises pytest.UsageError for options that make no sense.
    """
    rounds = config.getoption("fastloop_rounds")
    if rounds < 1:
        raise pytest.UsageError("--fastloop-rounds wants a number from 1 on")
    words = list(config.invocation_params.args)
    kinds = _kinds(config.getoption("fastloop_compare"), words)
    plan: list[str] = []
    for number in range(rounds):
        # The first round finds caches cold, which must not speak for us.
        plan += kinds if number % 2 else kinds[::-1]
    starter = _Starter()
    runs: list[_Run] = []
    with starter.listening(), TemporaryDirectory() as folder:
        notes = Path(folder, "notes")
        for kind in plan:
            title = f"run {len(runs) + 1} of {len(plan)}, on {kind}"
            print(f"\n== {title} ==", flush=True)
            runs.append(_run(starter, config, kind, words, notes))
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
    """The loops that were asked for, each of which can be made.

    Without = the option has taken the word behind it, which may be a path;
    words are changed so that the runs see that path.
    """
    if _OPTION in words and asked:
        place = words.index(_OPTION)
        path = asked not in _KNOWN and os.path.exists(asked.split("::")[0])
        words[place : place + 2] = [f"{_OPTION}=", *([asked] if path else [])]
        asked = "" if path else asked
    there = [kind for kind in _KNOWN if kind != "uvloop" or find_spec(kind)]
    kinds = list(dict.fromkeys(asked.split(","))) if asked else there
    for kind in kinds:
        try:
            factory_of(kind)
        except Exception as exc:  # a module may raise anything
            raise pytest.UsageError(
                f"{_OPTION}: there is no loop {kind!r} ({exc}): name some of "
                f"{', '.join(_KNOWN)} that are installed"
            ) from exc
    if len(kinds) < 2:
        raise pytest.UsageError(f"{_OPTION} wants at least two loops")
    return kinds


def _run(
    starter: _Starter,
    config: pytest.Config,
    kind: str,
    words: list[str],
    notes: Path,
) -> _Run:
    """Start pytest as this one was started, on a kind of loop."""
    given = config.invocation_params
    program = sys.orig_argv[1 : len(sys.orig_argv) - len(given.args)]
    name = os.path.basename("".join(program[-1:])).removeprefix("-m")
    if name not in ("pytest", "py.test"):  # called by some other program
        program = ["-m", "pytest"]
    notes.write_text("")
    program += [f"{_OPTION}-run={kind}={notes}", *words]
    begun = time.perf_counter()
    status = starter.run([sys.executable, *program], given.dir)
    run = _Run(kind, time.perf_counter() - begun, status)
    run.read(notes.read_text(encoding="utf-8"))
    return run


class _Starter:
    """Starts one process after another; a signal ends the one that runs."""

    def __init__(self) -> None:
        self.heard: list[int] = []
        self._child: subprocess.Popen[bytes] | None = None

    @contextlib.contextmanager
    def listening(self) -> Iterator[None]:
        """Take the signals that end a program, unless they are ignored."""
        found = {
            number: signal.getsignal(number)
            for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
        }
        taken = [n for n in found if found[n] is not signal.SIG_IGN]
        try:
            for number in taken:
                signal.signal(number, self._on_signal)
            yield
        finally:
            for number in taken:
                signal.signal(number, found[number])

    def _on_signal(self, number: int, frame: object) -> None:
        """Pass it on, but for a first Ctrl-C, which the child has as well.

        The third kills.
        """
        self.heard.append(number)
        times = len(self.heard)
        typed = times == 1 and number == signal.SIGINT and _in_foreground()
        if self._child is not None and not typed:
            self._child.send_signal(signal.SIGKILL if times > 2 else number)

    def run(self, command: list[str], folder: Path) -> int:
        """Run a command to its end and return its status."""
        terminal = None
        with contextlib.suppress(termios.error):
            terminal = termios.tcgetattr(0)
        self._child = subprocess.Popen(command, cwd=folder)
        if self.heard:  # before there was a child to have it
            self._child.send_signal(self.heard[-1])
        status = self._child.wait()
        self._child = None
        if status < 0 and terminal and _in_foreground():
            termios.tcsetattr(0, termios.TCSADRAIN, terminal)
        return status


def _in_foreground() -> bool:
    """Whether what is typed at the terminal reaches this process's group."""
    try:
        with open("/dev/tty", "rb") as terminal:
            return os.tcgetpgrp(terminal.fileno()) == os.getpgrp()
    except OSError:
        return False


# -- what is printed ----------------------------------------------------------


def _report(kinds: list[str], runs: list[_Run]) -> Iterator[str]:
    """The lines of the whole comparison."""
    yield from dict.fromkeys(filter(None, (run.complaint() for run in runs)))
    outcomes, timed = {}, {}
    rows = [["loop", "whole run", "tests' calls", "tests"]]
    for kind in kinds:
        found = [run for run in runs if run.kind == kind and run.tests]
        if not found:
            continue
        outcomes[kind] = _outcomes(found)
        # What was cut short is timed where there is nothing else.
        found = [run for run in found if not run.complaint()] or found
        if any(run.loops for run in found):
            timed[kind] = found
        whole = median(run.seconds for run in found)
        calls = median(run.calls(run.tests) for run in found)
        count = Counter(outcomes[kind].values())
        told = ", ".join(f"{n} {outcome}" for outcome, n in count.items())
        rows.append([kind, f"{whole:.3f} s", f"{calls:.3f} s", told])
    if not outcomes:
        yield "No test was run, so there is nothing to compare."
        return
    yield from _table(rows)
    yield from _tests("The outcome is not the same:", _differing(outcomes))
    yield from _tests("The time differs most in:", _apart(timed))
    base, *others = sorted(timed, key=lambda kind: kind != "asyncio") or [""]
    for kind in others:
        yield "\n" * (kind == others[0]) + _verdict(timed[base], timed[kind])
    if others and len(runs) <= len(kinds):
        yield "One run a loop says little: --fastloop-rounds=5 says more."


def _outcomes(runs: list[_Run]) -> dict[str, str]:
    """Of each test the outcome on one loop, or all if runs differ."""
    found: dict[str, set[str]] = {}
    for run in runs:
        for test, (outcome, _) in run.tests.items():
            found.setdefault(test, set()).add(outcome)
    return {test: "/".join(sorted(each)) for test, each in found.items()}


def _differing(outcomes: dict[str, dict[str, str]]) -> list[list[str]]:
    """The tests whose outcome is not the same where they ran, with heads."""
    rows = [[*outcomes, "test"]]
    for test in dict.fromkeys(chain(*outcomes.values())):
        row = [each.get(test, "not run") for each in outcomes.values()]
        if len({*row} - {"not run"}) > 1:
            rows.append([*row, test])
    return rows


def _apart(timed: dict[str, list[_Run]]) -> list[list[str]]:
    """The tests whose time differs, most first, with heads."""
    rows = []
    for test in _passed([*chain(*timed.values())]):
        times = [
            median(run.tests[test][1] for run in runs)
            for runs in timed.values()
        ]
        spread = max(times) - min(times)
        if spread > max(_LEAST_SPREAD, _LEAST_PART * max(times)):
            rows.append((spread, [*(f"{t:.3f} s" for t in times), test]))
    return [[*timed, "test"], *(row for _, row in sorted(rows, reverse=True))]


def _passed(runs: list[_Run]) -> list[str]:
    """The tests that passed in each of these runs."""
    passed = [
        [test for test, (how, _) in run.tests.items() if how == "passed"]
        for run in runs
    ]
    return [t for t, n in Counter(chain(*passed)).items() if n == len(runs)]


def _verdict(before: list[_Run], now: list[_Run]) -> str:
    """How much faster a loop was than another, if that can be told."""
    tests = _passed(before + now)
    old, new = ([run.calls(tests) for run in runs] for runs in (before, now))
    base, kind = before[0].kind, now[0].kind
    over = f"over {len(tests)} {'test' if len(tests) == 1 else 'tests'}"
    slow, fast = max(median(old), median(new)), min(median(old), median(new))
    overlap = min(old) <= max(new) and min(new) <= max(old)
    few = min(len(before), len(now)) < 3
    part = _LEAST_PART_OF_FEW if few else _LEAST_PART
    if overlap or slow < max(_LEAST_SECONDS, fast * (1 + part)):
        return f"{kind} and {base}: no difference that can be told {over}."
    times = median(old) / median(new)
    return f"{kind} is {times:.2f} times as fast as {base} {over}."


def _tests(title: str, rows: list[list[str]]) -> Iterator[str]:
    """A table of tests, if there are any; the first row are its heads."""
    if len(rows) > 1:
        yield f"\n{title}"
        yield from _table(rows[: _MOST_ROWS + 1])
    if len(rows) > _MOST_ROWS + 1:
        yield f"and {len(rows) - _MOST_ROWS - 1} more"


def _table(rows: list[list[str]]) -> Iterator[str]:
    """Rows, with their columns under each other."""
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    for row in rows:
        yield "  ".join(map(str.ljust, row, widths)).rstrip()
