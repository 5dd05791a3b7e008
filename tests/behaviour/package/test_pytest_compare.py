"""`pytest --fastloop-compare` over suites that know nothing of fastloop.

The comparison shows on which loop a test fails, if on one alone.
"""

import contextlib
import os
import select
import signal
import subprocess
import sys
import termios
import time

import pytest
from inner_suites import LIMIT, ONE_TEST, PLUGIN, SYNC

from fastloop.testing import compare

pytest_plugins = ["pytester"]

BOTH = "--fastloop-compare=asyncio,fastloop"
ON_FASTLOOP = ONE_TEST.format(kind="fastloop")

EVERY_PLUGIN = (
    ON_FASTLOOP
    + """
import asyncio
import unittest

@pytest.mark.anyio
@pytest.mark.parametrize("anyio_backend", ["asyncio"])
async def test_anyio(anyio_backend, kind):
    assert kind() == "fastloop"

class TestUnittest(unittest.IsolatedAsyncioTestCase):
    async def test_case(self):
        module = type(asyncio.get_running_loop()).__module__
        self.assertEqual(module.partition(".")[0], "fastloop")
"""
)


def test_each_run_is_on_its_loop(suite):
    result = suite(EVERY_PLUGIN, BOTH)
    assert result.ret == pytest.ExitCode.OK, "it passed on fastloop"
    result.stdout.fnmatch_lines(
        [
            "== run 1 of 2, on fastloop ==",
            "== run 2 of 2, on asyncio ==",
            "== fastloop compare ==",
            "asyncio * s * s *3 failed",
            "fastloop * s * s *3 passed",
            "The outcome is not the same:",
            "failed * passed *::test_it",
            "failed * passed *::test_anyio*",
            "failed * passed *::test_case",
            "These are times and no verdict*",
        ]
    )


WITH_OPTION = """
def pytest_addoption(parser):
    parser.addoption("--mine")

@pytest.fixture
def mine(request):
    return request.config.getoption("mine")
"""
OPTION_TEST = """
import pytest

@pytest.mark.parametrize("n", [1, 2, 3])
async def test_it(kind, mine, n):
    assert mine == "yes" and kind() == "asyncio"
"""


def test_words_are_passed_on_and_rounds_alternate(suite):
    result = suite(
        OPTION_TEST,
        "--fastloop-compare",
        "test_words_are_passed_on_and_rounds_alternate.py",
        "--mine=yes",
        "-k",
        "not 3",
        "--fastloop-rounds=2",
        "-p",
        "no_uvloop",
        conftest=WITH_OPTION,
        asyncio_mode="auto",
        modules={"no_uvloop": "import sys; sys.modules['uvloop'] = None"},
    )
    assert result.ret == pytest.ExitCode.TESTS_FAILED, "it failed on fastloop"
    result.stdout.fnmatch_lines(
        [
            "== run 1 of 4, on fastloop ==",
            "== run 2 of 4, on asyncio ==",
            "== run 3 of 4, on asyncio ==",
            "== run 4 of 4, on fastloop ==",
            "asyncio * 2 passed",
            "fastloop * 2 failed",
        ]
    )
    result.stdout.fnmatch_lines(["These are times and no verdict*"])
    result.stdout.no_fnmatch_line("*times as fast*")


def test_rounds_need_a_comparison(suite):
    result = suite(ON_FASTLOOP, "--fastloop-rounds=5")
    assert result.ret == pytest.ExitCode.USAGE_ERROR
    result.stderr.fnmatch_lines(
        ["ERROR: --fastloop-rounds needs --fastloop-compare"]
    )


def test_uvloop_is_compared_where_it_is_installed(suite):
    result = suite(
        ON_FASTLOOP,
        "--fastloop-compare",
        modules={"uvloop": "from asyncio import SelectorEventLoop as Loop"},
    )
    result.stdout.fnmatch_lines(["failed * failed * passed *::test_it"])


def test_a_uvloop_that_cannot_be_imported_is_left_out(suite):
    broken = {"uvloop": "raise ImportError('no libuv')"}
    result = suite(ON_FASTLOOP, "--fastloop-compare", modules=broken)
    text = "fastloop: uvloop is left out: ImportError: no libuv"
    result.stderr.fnmatch_lines([text])
    result.stdout.fnmatch_lines(["== run 2 of 2, on asyncio =="])


def test_options_that_make_no_sense_run_nothing(suite):
    result = suite(SYNC, "--fastloop-compare=asyncio,absent")
    assert result.ret == pytest.ExitCode.USAGE_ERROR
    assert len([line for line in result.errlines if line]) == 1
    result.stderr.fnmatch_lines(["*there is no loop 'absent'*"])
    result.stdout.no_fnmatch_line("== run*")


@pytest.mark.parametrize(
    "asked", ["absent", "asyncio,", ",", "a:b", "asyncio"]
)
def test_loops_that_cannot_be_compared(asked):
    with pytest.raises(pytest.UsageError, match="no loop|two loops"):
        compare._kinds(asked, [f"{compare._OPTION}={asked}"])
    with pytest.raises(pytest.UsageError, match="no loop|two loops"):
        compare._kinds(asked, [compare._OPTION, asked])


def test_a_path_behind_the_option_is_not_taken_for_a_loop():
    path = f"{__file__}::test_it"
    words = ["-q", compare._OPTION, path, "-x"]
    assert "fastloop" in compare._kinds(path, words)
    assert words == ["-q", f"{compare._OPTION}=", path, "-x"]
    words = [compare._OPTION, "asyncio,fastloop"]
    assert compare._kinds(words[1], words) == ["asyncio", "fastloop"]
    assert words == [f"{compare._OPTION}="]


def test_nothing_collected_ends_it(suite):
    result = suite(SYNC, BOTH, "-k", "absent")
    assert result.ret == pytest.ExitCode.NO_TESTS_COLLECTED
    result.stdout.fnmatch_lines(["*on fastloop found no test to run."])
    result.stdout.no_fnmatch_line("*run 2*")


def test_suite_that_makes_no_loop(suite):
    result = suite(SYNC, BOTH)
    assert result.ret == pytest.ExitCode.TESTS_FAILED
    result.stdout.fnmatch_lines(["*on asyncio made no event loop*"])
    result.stdout.no_fnmatch_line("*times as fast*")


def test_run_that_crashes(suite):
    """The other runs are reported, and so is the test it died in."""
    result = suite(
        ON_FASTLOOP
        + """
import os

@pytest.mark.asyncio
async def test_crash(kind):
    if kind() == "fastloop":
        os.abort()
""",
        BOTH,
        "-p",
        "no:faulthandler",
    )
    assert result.ret == 128 + signal.SIGABRT
    result.stdout.fnmatch_lines(
        [
            "The run on fastloop was ended by SIGABRT; tests begun: 2.",
            "asyncio *1 failed, 1 passed",
            "passed * unfinished *::test_crash",
        ]
    )


def test_workers_of_xdist(suite):
    pytest.importorskip("xdist", reason="pytest-xdist is not installed")
    result = suite(ON_FASTLOOP, BOTH, "-n", "1")
    assert result.ret == pytest.ExitCode.OK
    result.stdout.fnmatch_lines(["failed * passed *::test_it"])


# -- signals ------------------------------------------------------------------

#: Both sleep in short steps: a signal just before a long sleep begins does
#: not interrupt it, and its Python handler runs only when the sleep ends.
SLEEPS = """
import time

def test_first():
    pass

def test_sleeps():
    print("sleeping")
    while True:
        time.sleep(0.05)
"""
#: Its handler does not print: a signal may come in the middle of a print.
STUBBORN = """
import os
import signal
import sys
import time
import tty

def test_first():
    tty.setcbreak(sys.stdin.fileno())
    signal.signal(signal.SIGTERM, lambda *_: os.write(1, b"heard"))
    print("sleeping")
    while True:
        time.sleep(0.05)
"""


class Terminal:
    """A process with a terminal of its own."""

    def __init__(self, command, folder):
        self.end, self._other = os.openpty()
        self.before = termios.tcgetattr(self._other)
        name = os.ttyname(self._other)
        script = 'exec "$@" <"$0" >"$0" 2>&1'  # makes it the terminal
        self.process = subprocess.Popen(
            ["sh", "-c", script, name, *command],
            start_new_session=True,
            cwd=folder,
        )
        self.text = ""

    def read_until(self, words):
        """Read on to some words, which must come within LIMIT seconds."""
        deadline = time.monotonic() + LIMIT
        while words not in self.text:
            left = max(0, deadline - time.monotonic())
            if not select.select([self.end], [], [], left)[0]:
                pytest.fail(f"no {words!r} came, but: {self.text!r}")
            self.text += os.read(self.end, 65536).decode()
        begun, _, self.text = self.text.partition(words)
        return begun

    def close(self):
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self.process.pid, signal.SIGKILL)
        self.process.wait()
        os.close(self.end)
        os.close(self._other)

    def check_ended(self):
        """Nothing is left of it, and the terminal is as it was."""
        assert self.process.wait(LIMIT) == pytest.ExitCode.INTERRUPTED
        with pytest.raises(ProcessLookupError):
            os.killpg(self.process.pid, 0)
        assert termios.tcgetattr(self._other) == self.before


@pytest.fixture
def terminal(suite, pytester):
    """Return a function that compares a suite at a terminal."""
    opened = []

    def start(source):
        suite(source, "--collect-only")
        command = [sys.executable, "-m", "pytest", *PLUGIN, BOTH, "-s"]
        opened.append(Terminal(command, pytester.path))
        return opened[-1]

    yield start
    for one in opened:
        one.close()


@pytest.mark.parametrize(
    ("moment", "expected"),
    [
        ("on fastloop ==", "so there is nothing to compare."),
        ("sleeping", "1 passed, 1 unfinished"),
    ],
)
def test_ctrl_c(terminal, moment, expected):
    one = terminal(SLEEPS)
    one.read_until(moment)
    os.write(one.end, b"\x03")
    one.read_until("== fastloop compare ==")
    assert one.read_until(expected).count("The run on fastloop was ") == 1
    one.check_ended()


def test_third_signal_kills_a_run_that_does_not_end(terminal):
    one = terminal(STUBBORN)
    one.read_until("sleeping")
    for answer in ("heard", "heard", "was ended by SIGKILL"):
        one.process.send_signal(signal.SIGTERM)
        one.read_until(answer)
    one.read_until("1 unfinished")
    one.check_ended()


def test_sigterm_to_the_one_process(terminal):
    one = terminal(SLEEPS)
    one.read_until("sleeping")
    one.process.send_signal(signal.SIGTERM)
    one.read_until("was ended by SIGTERM")
    one.read_until("1 passed, 1 unfinished")
    one.check_ended()


# -- what the numbers say -----------------------------------------------------


def runs(kind, *calls):
    return [
        compare._Run(
            kind, 9.0, 0, n, 1, {"a": ("passed", 0.0), "b": ("passed", s)}
        )
        for n, s in enumerate(calls)
    ]


FIVE = [1.0, 1.1, 0.9, 1.05, 0.95]
FEW = "These are times and no verdict"


@pytest.mark.parametrize(
    ("before", "now", "expected"),
    [
        ([2 * s for s in FIVE], FIVE, "fastloop is 2.00 times as fast as"),
        (FIVE, [2 * s for s in FIVE], "fastloop is 0.50 times as fast as"),
        ([2.0], [1.0], FEW),
        ([2.0] * 4, [1.0] * 4, FEW),
        ([2.0] * 5, [1.0] * 4, FEW),
        (FIVE, FIVE[::-1], "no significant difference (1.00 times, 99.9 %"),
        ([1.1, 1.0, 1.3, 1.0, 1.2], [1.0] * 5, "; about --fastloop-rounds=1"),
        ([1.005] * 5, [1.0] * 5, "no significant difference"),
        ([0.04] * 5, [0.01] * 5, "the calls are too short"),
    ],
)
def test_verdict(before, now, expected):
    timed = {
        "asyncio": runs("asyncio", *before),
        "fastloop": runs("fastloop", *now),
    }
    *_, text = compare._verdicts(timed)
    assert expected in text
    assert expected == FEW or "2 tests" in text


def test_only_rounds_that_are_complete_on_both_loops_count():
    old, new = runs("asyncio", *FIVE, 9.0), runs("fastloop", *FIVE, 1.0)
    del old[0], new[-1]
    rounds = [(one.round, two.round) for one, two in compare._rounds(old, new)]
    assert rounds == [(n, n) for n in range(1, 5)]


def test_times_that_differ_most_come_first():
    timed = {
        "asyncio": runs("asyncio", 2.0),
        "fastloop": runs("fastloop", 1.0),
    }
    timed["asyncio"][0].tests["c"] = ("passed", 5.0)
    timed["fastloop"][0].tests["c"] = ("passed", 1.0)
    assert compare._apart(timed) == [
        ["asyncio", "fastloop", "test"],
        ["5.000 s", "1.000 s", "c"],
        ["2.000 s", "1.000 s", "b"],
    ]


def test_outcomes_that_vary_and_tests_not_run():
    first, second = runs("asyncio", 1.0, 1.0)
    second.tests = {"a": ("failed", 0.0)}
    outcomes = compare._outcomes([first, second])
    assert outcomes == {"a": "failed/passed", "b": "passed"}
    kinds = {"asyncio": outcomes, "fastloop": {"a": "passed"}}
    assert compare._differing(kinds)[1:] == [["failed/passed", "passed", "a"]]


def test_notes_of_a_run_that_was_killed_while_it_wrote():
    run = compare._Run("fastloop", 1.0, -9, 0)
    run.read('["a", "", 0.0]\n["a", "failed", 1.5]\n["a", "passed", 0]\n["b"')
    assert run.tests == {"a": ("failed", 1.5)}
