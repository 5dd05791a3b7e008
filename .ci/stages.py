"""Runs the stages of .ci/run, two at a time, and prints what came of them.

A stage is one interpreter (or build) and one command, with a limit of time.
Interpreters that have to be made are made in the background, in the order in
which stages ask for them.  A stage that did not run counts as failed: the
table at the end is the promise.

A few failed tests get a second look, for some 30,000 run on a machine that
does other work: each is run alone, AGAIN times.  One that fails again fails
the stage; one that never does is named in the table as unsteady, to be
mended.  A crash, a report of a sanitizer and a time-out get none.
"""

import argparse
import collections
import contextlib
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import threading
import time
import xml.etree.ElementTree as ElementTree
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path

TOP = Path(__file__).resolve().parent.parent
CACHE = Path(
    os.environ.get("FASTLOOP_CACHE") or Path.home() / ".cache" / "fastloop"
)
PYTHONS = CACHE / "pythons"
LOGS = TOP / "build" / "ci"
VERSIONS = ("3.12", "3.13", "3.14", "3.15", "3.13t")
# asyncio's own half of the behaviour tests: on 3.11 each time, on the others
# in the gate.
OURS_ALONE = "-k 'not [asyncio'"
# What ThreadSanitizer looks at: the rest has one thread, and takes hours.
THREADED = "(thread or executor or many_loops or parallel)"
# It takes a thread of a forked child for one of the parent's with its number,
# and ends the child ("dup thread with used id").
THREADED += " and not forked_child_starts and not fastloop-fork]"
OWN = (
    "unit",
    "behaviour",
    "isolated",
    "fault",
    "differential",
    "lint/test_surface.py",
    "lint/test_surface_proofs.py",
)
ALL_COUNTED = ("unit", "behaviour", "isolated/test_refcount_plugin.py")
# Each test is run five times and more: here one of each kind of object, the
# rest in the gate.
COUNTED = (
    "unit",
    *(
        f"behaviour/test_{name}.py"
        for name in (
            "buffered_protocol",
            "context",
            "exceptions",
            "executor",
            "fd_watchers",
            "handles",
            "lifecycle",
            "run",
            "scheduling",
            "tasks",
            "threadsafe",
            "timers",
            "transport_close",
            "unix_streams",
        )
    ),
    "isolated/test_refcount_plugin.py",
)
# So many failed tests of a stage are looked at again, so many times each.
FEW = 3
AGAIN = 3
# What GNU make ends with, whatever its command ended with.
MAKE_FAILED = 2
# Only .github/workflows/wheels.yml gets there.
ELSEWHERE = "Linux on arm64, musl, macOS"
# A limit is for what hangs: other load may make a stage this much slower.
SLOWER = 3
# Likewise the seconds of one test, where nothing sanitizes it.
TEST_TIMEOUT = "180"
# The process groups of what runs now.
LIVE: set[int] = set()
# Two stages at a time build in one tree: one after the other.
TURN = "flock build/ci/setup.lock"
SETUP = f"{TURN} tools/setup-env"


@dataclass
class Interpreter:
    """An interpreter: how it is made, and how a command meets it."""

    verb: str = ""
    folder: str = ""
    python: str = "python3"
    tree: bool = False
    error: str = ""
    ready: threading.Event = field(default_factory=threading.Event)

    @property
    def path(self) -> Path:
        return PYTHONS / self.folder

    def wrap(self, command: list[str]) -> list[str]:
        if self.tree:
            return [".ci/pythons", "enter", str(self.path), *command]
        return command

    def make(self) -> None:
        if self.verb and not (self.path / ".complete").exists():
            say(f"making {self.folder} in the background")
            log = LOGS / f"make-{self.folder}.log"
            code = run(
                ["nice", "-n", "10", ".ci/pythons", self.verb, str(self.path)],
                {},
                log,
                1200,
            )
            if code:
                self.error = f"could not be made, see {log}\n{tail(log, 5)}"
            else:
                say(f"{self.folder} is made")
        self.ready.set()


@dataclass
class Stage:
    """One line of the table."""

    name: str
    what: str
    interpreter: str
    command: str
    minutes: int = 20  # of a machine that does nothing else
    env: dict[str, str] = field(default_factory=dict)
    gate: bool = False
    venv: str = ""
    result: str = "did not run"
    note: str = ""
    counts: collections.Counter[str] = field(
        default_factory=collections.Counter
    )
    skips: collections.Counter[str] = field(
        default_factory=collections.Counter
    )
    unsteady: list[str] = field(default_factory=list)
    seconds: float = 0.0

    @property
    def log(self) -> Path:
        return LOGS / f"{self.name}.log"

    @property
    def report(self) -> Path:
        return LOGS / f"{self.name}.xml"

    @property
    def cache(self) -> Path:
        """Where pytest remembers which tests failed."""
        return LOGS / f"{self.name}.cache"


def pyenv(minor: str) -> str:
    """pyenv's newest interpreter of this minor version, or nothing."""
    root = Path(os.environ.get("PYENV_ROOT") or Path.home() / ".pyenv")
    found = sorted(root.glob(f"versions/{minor}.*/bin/python{minor}"))
    return str(found[-1]) if found else ""


def from_pyenv(minor: str) -> Interpreter:
    """A version that neither Debian nor its sources have."""
    found = pyenv(minor)
    error = "" if found else f"pyenv install {minor}: there is none here"
    return Interpreter(python=found, error=error)


def interpreters() -> dict[str, Interpreter]:
    own = shutil.which("python3.11") or "python3"
    plain = Interpreter("plain", "3.13", str(PYTHONS / "3.13/bin/python3.13"))
    if pyenv("3.13"):
        plain = Interpreter(python=pyenv("3.13"))
    return {
        "3.11": Interpreter(python=own),
        "3.12": from_pyenv("3.12"),
        "3.13": plain,
        "3.14": Interpreter("forky", "forky", "python3.14", tree=True),
        "3.15": Interpreter("forky", "forky", "python3.15", tree=True),
        "3.14d": Interpreter("forky", "forky", "python3.14d", tree=True),
        "3.13t": Interpreter(
            "nogil", "3.13t", str(PYTHONS / "3.13t/bin/python3.13t")
        ),
        "asan": Interpreter(
            "sanitized",
            "3.13-asan",
            str(PYTHONS / "3.13-asan/bin/python3.13"),
        ),
        "tsan": Interpreter(
            "tsan", "3.13-tsan", str(PYTHONS / "3.13-tsan/bin/python3.13t")
        ),
    }


def tests(folders: Iterable[str], extra: str = "") -> str:
    """The command that runs these folders of tests/ in an environment."""
    there = [f"tests/{name}" for name in folders]
    there = [name for name in there if (TOP / name).exists()]
    return (
        f"{SETUP} build test && "
        f'"$VENV/bin/python" -m pytest -q {" ".join(there)} {extra}'
    )


def stages() -> list[Stage]:
    rows = [
        Stage("lint", "style, layers, sizes, stubs", "3.11", "make lint"),
        Stage("3.11", "make test", "3.11", "make test", 30),
    ]
    for name in VERSIONS:
        rows.append(Stage(name, "our own tests", name, tests(OWN, OURS_ALONE)))
    # What is slow goes first, so that the two workers end together.
    slow = [
        count_references("refcount", COUNTED, 30),
        sanitize("asan", "ASan+UBSan, leaks", ""),
    ]
    return [*rows[:2], *slow, *rows[2:], *conformance(), *gate_stages()]


def conformance() -> list[Stage]:
    """CPython's own tests of asyncio, on each version, in its environment."""
    return [
        Stage(
            f"{name}-conf",
            "CPython's test_asyncio",
            name,
            f'{SETUP} build && "$VENV/bin/python" tests/conformance/run.py '
            f"--name {name} --junitxml {LOGS}/{name}-conf.xml",
            20,
            venv=".venv" if name == "3.11" else f".venv-{name}",
        )
        for name in ("3.11", *VERSIONS)
    ]


def sanitize(name: str, what: str, kind: str) -> Stage:
    return Stage(
        name,
        what,
        "asan",
        f"{SETUP} build test && .ci/leaks.py {LOGS} {kind}",
        30,
        {
            "FASTLOOP_SANITIZE": "address,undefined",
            "FASTLOOP_TEST_TIMEOUT": "480",
            "ASAN_OPTIONS": "detect_leaks=0",
            "PYTHONMALLOC": "malloc",
        },
    )


def count_references(name: str, folders: Iterable[str], minutes: int) -> Stage:
    return Stage(
        name,
        "reference counts",
        "3.14d",
        tests(
            folders,
            f"-p tests.refcount --refcount {OURS_ALONE} "
            "--ignore=tests/behaviour/test_pytest_plugin.py",
        ),
        minutes,
        {"FASTLOOP_DEBUG": "1", "FASTLOOP_TEST_TIMEOUT": "480"},
    )


def find_races(command: str) -> str:
    """The command, which fails too if it left a report behind."""
    reports = f"{LOGS}/tsan-report.*"
    return (
        f"rm -f {reports}; {command}; code=$?; "
        f"cat {reports} 2>/dev/null && code=3; exit $code"
    )


def gate_stages() -> list[Stage]:
    """What has no limit of time."""
    rows = [
        count_references("refcount-all", ALL_COUNTED, 90),
        sanitize("asan-abrupt", "ASan+UBSan, ends and faults", "abrupt"),
        *(
            Stage(
                f"{name}-oracle",
                "our own tests, both loops",
                name,
                tests(OWN),
                40,
            )
            for name in VERSIONS
        ),
        Stage(
            "differential",
            "20,000 generated programs",
            "3.11",
            tests(("differential",), "-n 4"),
            40,
            {"FASTLOOP_DIFFERENTIAL": "20000", "FASTLOOP_TEST_TIMEOUT": "900"},
        ),
        Stage("wheel", "a wheel without libuv", "3.11", "make wheel", 15),
        Stage(
            "3.14-all",
            "the real programs",
            "3.14",
            f"{SETUP} build test interop && "
            '"$VENV/bin/python" -m pytest -q tests/interop',
            30,
        ),
        Stage(
            "libuv-1.48",
            "behaviour on libuv 1.48",
            "3.11",
            ".ci/libuv-1.48 tests/isolated/test_sqpoll.py tests/behaviour "
            f"{OURS_ALONE}",
            40,
        ),
        Stage(
            "upstream",
            "uvicorn's, websockets' tests",
            "3.11",
            f'{SETUP} build && "$VENV/bin/python" '
            "tests/interop/upstream_suites.py",
            60,
        ),
        Stage(
            "debug",
            "asserts on",
            "3.11",
            tests(OWN),
            20,
            {"FASTLOOP_DEBUG": "1"},
        ),
        Stage(
            "clang",
            "built by clang",
            "3.13",
            tests(OWN),
            20,
            {"CC": "clang", "FASTLOOP_WERROR": "1"},
        ),
        Stage(
            "lto",
            "link-time optimisation",
            "3.13",
            tests(OWN),
            20,
            {"FASTLOOP_LTO": "1"},
        ),
        Stage(
            "tsan",
            "ThreadSanitizer",
            "tsan",
            find_races(tests(OWN, f"{OURS_ALONE[:-1]} and {THREADED}'")),
            90,
            {
                "FASTLOOP_SANITIZE": "thread",
                # Half of it is a program's: four subinterpreters that import
                # asyncio take over two minutes.
                "FASTLOOP_TEST_TIMEOUT": "600",
                # The children that tests fork start threads of their own.
                "TSAN_OPTIONS": f"suppressions={TOP}/.ci/tsan.supp "
                f"log_path={LOGS}/tsan-report die_after_fork=0 "
                "report_thread_leaks=0",  # a daemon thread is one
            },
        ),
    ]
    for row in rows:
        row.gate = True
    return rows


def say(text: str) -> None:
    print(f"ci: {time.strftime('%H:%M:%S')} {text}", flush=True)


def tail(path: Path, lines: int) -> str:
    text = path.read_text(errors="replace") if path.exists() else ""
    return "\n".join(text.splitlines()[-lines:])


def run(
    command: list[str], env: dict[str, str], log: Path, seconds: float
) -> int:
    """The exit status; 124 when time ran out and the group was killed."""
    with open(log, "wb") as out:
        child = subprocess.Popen(
            command,
            cwd=TOP,
            env={**os.environ, **env},
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
            # Nothing that a stage started outlives it.
            for number in (signal.SIGTERM, signal.SIGKILL):
                try:
                    os.killpg(child.pid, number)
                except ProcessLookupError:
                    break
                time.sleep(0.5)
            child.wait()
            LIVE.discard(child.pid)


def stopped(number: int, frame: object) -> None:
    """Ends with all that was started, when the run itself is ended."""
    for group in list(LIVE):
        with contextlib.suppress(ProcessLookupError):
            os.killpg(group, signal.SIGKILL)
    os._exit(128 + number)


def run_stage(stage: Stage, interpreter: Interpreter) -> None:
    interpreter.ready.wait()
    if interpreter.error:
        stage.note = interpreter.error
        return
    say(f"{stage.name}: {stage.what}")
    stage.report.unlink(missing_ok=True)
    shutil.rmtree(stage.cache, ignore_errors=True)
    began = time.monotonic()
    code = run_command(stage, interpreter, stage.log, stage.report)
    stage.result = "ok" if code == 0 else "FAILED"
    if code == 124:
        stage.note = f"stopped after {stage.minutes * SLOWER} minutes"
    elif code:
        stage.note = f"exit status {code}"
    read_report(stage)
    if stage.result != "ok":
        print(tail(stage.log, 60), flush=True)
        if code in (1, MAKE_FAILED):
            look_again(stage, interpreter)
    stage.seconds = time.monotonic() - began
    say(f"{stage.name}: {stage.result} {stage.note}")


def run_command(
    stage: Stage, interpreter: Interpreter, log: Path, report: Path, *more: str
) -> int:
    """Runs the stage's command; more goes to pytest."""
    own = ".venv" if stage.name == "3.11" else f".venv-{stage.name}"
    env = {
        "PYTHON": interpreter.python,
        "VENV": stage.venv or own,
        "FASTLOOP_WERROR": "1",
        "FASTLOOP_TEST_TIMEOUT": TEST_TIMEOUT,
        "PYTEST_ADDOPTS": " ".join(
            (
                os.environ.get("PYTEST_ADDOPTS", ""),
                f"--junitxml={report} -o cache_dir={stage.cache}",
                *more,
            )
        ),
        "TURN": TURN,
        **stage.env,
    }
    command = interpreter.wrap(["sh", "-c", stage.command])
    return run(command, env, log, stage.minutes * SLOWER * 60)


def look_again(stage: Stage, interpreter: Interpreter) -> None:
    """Tells tests that fail from tests that failed."""
    remembered = stage.cache / "v" / "cache" / "lastfailed"
    failed = json.loads(remembered.read_text()) if remembered.exists() else {}
    if not 0 < len(failed) <= FEW:
        return
    for number in range(1, AGAIN + 1):
        say(f"{stage.name}: again, {number} of {AGAIN}: {' '.join(failed)}")
        log = LOGS / f"{stage.name}-again-{number}.log"
        if run_command(
            stage,
            interpreter,
            log,
            LOGS / f"{stage.name}-again-{number}.xml",
            "--last-failed --last-failed-no-failures=none",
        ):
            print(tail(log, 60), flush=True)
            return
        # A green run empties it.
        remembered.write_text(json.dumps(failed))
    stage.unsteady = list(failed)
    stage.result = "ok"
    stage.note = f"{len(failed)} unsteady"


def read_report(stage: Stage) -> None:
    if not stage.report.exists():
        tests = "pytest" in stage.command or "--junitxml" in stage.command
        if tests or stage.name in ("3.11", "lint"):
            stage.result = "FAILED"
            stage.note = stage.note or "no report of the tests"
        return
    for case in ElementTree.parse(stage.report).iter("testcase"):
        kinds = {child.tag: child for child in case}
        outcome = next(
            (k for k in ("failure", "error", "skipped") if k in kinds),
            "passed",
        )
        if outcome == "skipped" and "xfail" in kinds["skipped"].get("type"):
            outcome = "xfailed"
        stage.counts[outcome] += 1
        if outcome == "skipped":
            reason = kinds["skipped"].get("message") or "no reason"
            stage.skips[reason] += 1
            if stage.name == "3.11" and "interop" in case.get("classname", ""):
                stage.result = "FAILED"
                stage.note = f"skipped here, where none may be: {reason}"
    if not stage.counts["passed"]:
        stage.result = "FAILED"
        stage.note = stage.note or "no test ran"


def table(rows: list[Stage]) -> str:
    head = f"{'stage':<13}{'what':<28}{'result':<13}"
    head += f"{'passed':>7}{'failed':>7}{'skipped':>8}{'time':>8}"
    lines = [head, "-" * len(head)]
    for row in rows:
        failed = row.counts["failure"] + row.counts["error"]
        lines.append(
            f"{row.name:<13}{row.what:<28}{row.result:<13}"
            f"{row.counts['passed']:>7}{failed:>7}"
            f"{row.counts['skipped']:>8}{row.seconds:>7.0f}s"
            + (f"  {row.note.splitlines()[0]}" if row.note else "")
        )
    reasons: dict[str, list[str]] = {}
    for row in rows:
        for reason, count in row.skips.items():
            short = re.sub(r"\s+", " ", reason)
            reasons.setdefault(short, []).append(f"{row.name}: {count}")
    unsteady = [f"  {row.name}: {id}" for row in rows for id in row.unsteady]
    if unsteady:
        head = f"unsteady (failed once, passed {AGAIN} times), to be mended:"
        lines += ["", head, *unsteady]
    if reasons:
        lines += ["", "skipped, and why:"]
        for reason, where in sorted(reasons.items()):
            lines.append(f"  {reason} ({', '.join(where)})")
    return "\n".join(lines)


def not_run(rows: list[Stage]) -> str:
    """What this run leaves out, and what no run here can reach."""
    names = {row.name for row in rows}
    left = [row.name for row in stages() if row.name not in names]
    lines = [f"not run: {', '.join(left)}"] if left else []
    return "\n".join([*lines, f"not run here: {ELSEWHERE}"])


def chosen(options: argparse.Namespace) -> list[Stage]:
    rows = stages()
    if options.only:
        unknown = set(options.only) - {row.name for row in rows}
        if unknown:
            sys.exit(f"ci: no such stage: {', '.join(sorted(unknown))}")
        return [row for row in rows if row.name in options.only]
    return [row for row in rows if options.gate or not row.gate]


def main() -> int:
    parser = argparse.ArgumentParser(prog=".ci/run")
    parser.add_argument("--gate", action="store_true")
    parser.add_argument("--only", nargs="+", metavar="NAME")
    parser.add_argument("--jobs", type=int, default=2, help="at once (2)")
    parser.add_argument("--list", action="store_true")
    options = parser.parse_args()
    rows = chosen(options)
    if options.list:
        for row in stages():
            print(f"{row.name:<13}{row.what}{'  (gate)' * row.gate}")
        return 0
    LOGS.mkdir(parents=True, exist_ok=True)
    PYTHONS.mkdir(parents=True, exist_ok=True)
    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
        signal.signal(number, stopped)
    began = time.monotonic()
    have = interpreters()
    wanted = [
        have[name] for name in dict.fromkeys(r.interpreter for r in rows)
    ]
    maker = threading.Thread(
        target=lambda: [one.make() for one in wanted], daemon=True
    )
    maker.start()
    with ThreadPoolExecutor(options.jobs) as pool:
        first = [row for row in rows if not row.gate]
        list(pool.map(lambda r: run_stage(r, have[r.interpreter]), first))
    # These build other flavours in place: never beside another.
    for row in rows:
        if row.gate:
            run_stage(row, have[row.interpreter])
    minutes = (time.monotonic() - began) / 60
    text = f"{table(rows)}\n\n{not_run(rows)}"
    print(f"\n{text}\n\n{minutes:.1f} minutes; logs in {LOGS}", flush=True)
    (LOGS / "table.txt").write_text(text + "\n")
    return 0 if all(row.result == "ok" for row in rows) else 1


if __name__ == "__main__":
    sys.exit(main())
