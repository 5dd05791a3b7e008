"""The stages of .ci/run, a session each: what runs, and on which Python.

    nox --list       names and describes them
    nox -s 3.14      runs one of them; .ci/run runs them all and counts

An environment is made by tools/setup-env and not by nox, because Debian 12
lacks 3.14 and 3.15: they run inside a Debian tree of their own (.ci/pythons),
which nox cannot enter.  Sessions tagged `gate` run only in `.ci/run --gate`.
Some of them build the extension in place with other options, so none of them
runs beside another session.
"""

from __future__ import annotations

import os
import re
import shlex
import shutil
from pathlib import Path

import nox

TOP = Path(__file__).resolve().parent
CACHE = Path(
    os.environ.get("FASTLOOP_CACHE") or Path.home() / ".cache" / "fastloop"
)
PYTHONS = CACHE / "pythons"
LOGS = TOP / "build" / "ci"

nox.options.default_venv_backend = "none"
nox.options.error_on_external_run = False

VERSIONS = ("3.13t", "3.12", "3.13", "3.14", "3.15")
#: An interpreter that has to be made: the verb of .ci/pythons that makes it
#: (and which version), the folder, and the program in it.
MADE = {
    "3.13": ("plain", "3.13", "bin/python3.13"),
    "3.13t": ("nogil", "3.13t", "bin/python3.13t"),
    "3.14t": ("nogil 3.14", "3.14t", "bin/python3.14t"),
    "asan": ("sanitized", "3.13-asan", "bin/python3.13"),
    "tsan": ("tsan", "3.13-tsan", "bin/python3.13t"),
}
#: Those of the Debian tree.
IN_TREE = ("3.14", "3.14d", "3.15")

#: Every test of ours but those of real programs and of the sources.
OWN = """tests/unit tests/behaviour tests/isolated tests/fault
tests/differential tests/lint/test_surface.py"""
#: Real programs that need a server or a load tool, which a newcomer's machine
#: lacks: what the README's test command skips.  It runs the cases of the race
#: that need none, which are marked.
WITH_SERVERS = " ".join(
    f"tests/interop/test_{name}.py"
    for name in (
        *("bench_load_tools", "metrics_scraped", "postgres", "race_cases"),
        "redis",
    )
)
#: Behaviour tests that the stage `refcount` runs, each at least five times:
#: one file for each kind of object, the other files in the gate.
COUNTED = """buffered_protocol context exceptions executor fd_callbacks handles
lifecycle run scheduling tasks threadsafe timers transport_close
unix_streams"""
#: asyncio's half of the behaviour tests runs on 3.11 each time, and on the
#: other versions in the gate.
NOT_ASYNCIO = "-k 'not [asyncio'"
#: What is made for builds without a GIL; `readme` runs it on one with a GIL.
WITHOUT_GIL = "tests/interop/test_one_process_many_loops.py"
#: Leaves out what takes long and seldom differs between versions: commands and
#: pytest's plugins, which start hundreds of processes, floods of keys, whole
#: scenarios.  The stages `readme` and 3.14 run them, and those of the gate.
NOT_SLOW = """--ignore=tests/behaviour/cli
--ignore-glob=tests/behaviour/package/test_pytest_*.py
--ignore=tests/behaviour/package/test_top_finds.py
--ignore=tests/behaviour/tls/test_tls_key_floods.py
--ignore=tests/fault/test_scenarios.py"""
#: What the stage `asan` does not run on 3.13, or in part; the gate runs all
#: tests on 3.13.
BESIDE_ASAN = """tests/isolated tests/fault tests/differential
tests/behaviour/package tests/behaviour/transport/test_cork_order.py
tests/unit/test_reader_programs.py tests/lint/test_surface.py"""
#: Without a GIL the GC visits all objects, also those of tests that have not
#: run yet: two processes take half the time of one.
FIRST_HALF = "tests/behaviour/tls tests/behaviour/transport"
SECOND_HALF = f"{OWN} " + " ".join(
    f"--ignore={folder}" for folder in FIRST_HALF.split()
)
#: Where each test takes several times as long.
ON_QEMU = """tests/unit tests/behaviour/executor tests/behaviour/loop
tests/behaviour/sock tests/behaviour/streams tests/behaviour/transport"""
#: What ThreadSanitizer looks at: the rest has one thread, and takes hours.
THREADED = sorted(
    str(path.relative_to(TOP))
    for folder in ("unit", "behaviour", "isolated")
    for path in (TOP / "tests" / folder).rglob("test_*.py")
    if re.search("threading|to_thread|[Ee]xecutor", path.read_text())
    # They start processes, whose threads are others' to look at.
    and path.parent.name not in ("cli", "package")
)
#: ThreadSanitizer takes a thread of a forked child for the parent's thread of
#: that number, and ends the child ("dup thread with used id").
NOT_FORKED = (
    "-k 'not [asyncio and not forked_child_starts and not fastloop-fork "
    "and not child_leaves_the_parents_run'"
)
PYTEST = "python -m pytest -q"
#: Every call of whole scenarios, one after the other.
SWEEP = "python tests/fault/sweep.py"
#: Random programs.  Outside the gate their seed is fixed, so that a change
#: does not fail because of other programs; the gate has a new seed each day.
PROGRAMS = "python tests/differential/programs.py"
#: FASTLOOP_READER_PROGRAMS of slow builds (sanitizers, reference counts).
FEW_READERS = "50"
#: Seconds one test may take on a machine that does other work as well.
TEST_LIMIT = 300
#: A failed test gets a second look, at most so many tests of a session: one
#: that passes then is named as unsteady.  A time-out gets none.  A crash and
#: a sanitizer's report end more than a test, and so get none either.
SECOND_LOOKS = 3
AGAIN = (
    "-p no:xdist -p rerunfailures --reruns 1 --max-suite-reruns "
    f"{SECOND_LOOKS} --rerun-except pytest-timeout"
)


def stage(
    name: str,
    about: str,
    command: str | list[str],
    python: str = "3.11",
    needs: str = "test",
    *,
    venv: str = "",
    gate: bool = False,
    limit: int = TEST_LIMIT,
    **env: str,
) -> None:
    """Define the session NAME, which runs COMMAND, or each of several.

    NEEDS are groups of tools/setup-env, LIMIT is seconds of one test, ENV
    are more variables.  A first word `python` is the environment's.
    """
    venv = venv or f".venv-{name}"

    def session(session: nox.Session) -> None:
        enter, path = interpreter(session, python)
        LOGS.mkdir(parents=True, exist_ok=True)
        variables = {
            "PYTHON": path,
            "VENV": venv,
            "FASTLOOP_WERROR": "1",
            "PYTEST_TIMEOUT": str(limit),
            "PYTEST_ADDOPTS": f"--junitxml={LOGS}/{name}.xml -raR {AGAIN} "
            f"-p no:cacheprovider -o faulthandler_timeout={2 * limit} "
            + os.environ.get("PYTEST_ADDOPTS", ""),
            **env,
        }

        def run(words: str) -> None:
            if words.startswith("python "):
                words = f"{venv}/bin/{words}"
            session.run(*enter, *shlex.split(words), env=variables)

        # Sessions that run at once share a source tree: only one builds.
        run(f"flock {LOGS}/setup.lock tools/setup-env build {needs}")
        for words in [command] if isinstance(command, str) else command:
            run(words)

    session.__doc__ = about
    nox.session(session, name=name, tags=["gate"] if gate else [])


def interpreter(session: nox.Session, name: str) -> tuple[list[str], str]:
    """Make an interpreter; return how commands reach it and its path."""

    def make(verb: str, folder: str) -> Path:
        PYTHONS.mkdir(parents=True, exist_ok=True)
        path = PYTHONS / folder
        verb, *version = verb.split()
        session.run(".ci/pythons", verb, str(path), *version)
        return path

    if name in IN_TREE:
        tree = make("forky", "forky")
        return [".ci/pythons", "enter", str(tree)], f"python{name}"
    if name == "3.11":
        return [], shutil.which("python3.11") or "python3"
    root = Path(os.environ.get("PYENV_ROOT") or Path.home() / ".pyenv")
    found = sorted(root.glob(f"versions/{name}.*/bin/python{name}"))
    if found:
        return [], str(found[-1])
    if name not in MADE:
        session.error(f"there is no {name} here: pyenv install {name}")
    verb, folder, program = MADE[name]
    return [], str(make(verb, folder) / program)


def count_references(
    name: str, about: str, files: str, gate: bool = False
) -> None:
    """Define a session that looks for growing reference counts."""
    stage(
        name,
        about,
        f"{PYTEST} tests/unit {files} tests/isolated/test_refcount_plugin.py "
        f"-p tests.refcount --refcount {NOT_ASYNCIO} "
        "--ignore-glob=tests/behaviour/package/test_pytest_*.py",
        "3.14d",
        gate=gate,
        limit=1800,  # of all the runs of a test
        FASTLOOP_DEBUG="1",
        FASTLOOP_READER_PROGRAMS=FEW_READERS,
    )


def sanitize(name: str, about: str, kind: str, gate: bool = False) -> None:
    """Define a session under ASan and UBSan; KIND is for leaks.py."""
    stage(
        name,
        about,
        f"python .ci/leaks.py {LOGS} {kind}",
        "asan",
        gate=gate,
        limit=600,
        FASTLOOP_SANITIZE="address,undefined",
        ASAN_OPTIONS="detect_leaks=0",
        FASTLOOP_READER_PROGRAMS=FEW_READERS,
        PYTHONMALLOC="malloc",
    )


def newcomer(name: str, about: str, command: str, gate: bool = False) -> None:
    """Define a session that runs COMMAND as the README's reader would.

    That is in a clone, on a Debian that has git and make alone: its packages
    are those that the command itself installs.
    """

    def session(session: nox.Session) -> None:
        PYTHONS.mkdir(parents=True, exist_ok=True)
        tree = PYTHONS / "bare"
        session.run(".ci/pythons", "bare", str(tree))
        session.run(
            ".ci/pythons", "newcomer", str(tree), *shlex.split(command)
        )

    session.__doc__ = about
    nox.session(session, name=name, tags=["gate"] if gate else [])


def own(
    name: str, about: str, python: str, more: str = "", **env: str
) -> None:
    """Define a session in the gate that runs every test of ours."""
    stage(name, about, f"{PYTEST} {OWN} {more}", python, gate=True, **env)


def elsewhere(name: str, about: str, tests: str) -> None:
    """Define a session in the gate that runs TESTS on another processor."""
    stage(
        name,
        about,
        f".ci/platforms {name} {tests} {NOT_ASYNCIO}",
        needs="",
        gate=True,
        limit=600,
    )


# What is slow goes first, so that all workers end together.
newcomer(
    "readme",
    "make test on a new Debian",
    f"make test ARGS='-q --junitxml=build/ci/readme.xml -raR {AGAIN}'",
)
sanitize("asan", "ASan+UBSan, leaks", "")
stage(
    "lint",
    "style, layers, sizes, stubs",
    f"{PYTEST} tests/lint",
    needs="test lint",
    FASTLOOP_LINT_STRICT="1",
)
stage(
    "publish",
    "sdist, wheel, workflows",
    "tools/check-dist .venv-publish/bin/python",
    needs="publish",
)
stage(
    "docs",
    "the site, in Chromium",
    "python tools/check_site.py --browser",
    needs="docs browser",
    venv=".venv-docs",
)
stage(
    "interop",
    "programs that need a server",
    f"{PYTEST} {WITH_SERVERS} -m 'not needs_no_server'",
    needs="test interop",
    venv=".venv",
)
stage(
    "generated",
    "the corpus, 5,000 generated programs",
    [
        f"{PROGRAMS} --from corpus --workers 3",
        f"{PROGRAMS} --from mixed --programs 5000 --workers 3 --seed 20250101",
    ],
    venv=".venv",
)
count_references(
    "refcount",
    "reference counts",
    " ".join(
        str(path.relative_to(TOP))
        for name in COUNTED.split()
        for path in TOP.glob(f"tests/behaviour/*/test_{name}.py")
    ),
)
stage(
    "3.13t-half",
    "transports and TLS, calls in several threads",
    [
        f"{PYTEST} {FIRST_HALF} {NOT_SLOW} {NOT_ASYNCIO}",
        "python tests/fuzz/threaded.py --seconds 60 --seed 20250101",
    ],
    "3.13t",
    venv=".venv-3.13t",
)
for one in VERSIONS:
    which = {
        "3.13t": f"{SECOND_HALF} {NOT_SLOW} {WITHOUT_GIL}",
        "3.13": f"{BESIDE_ASAN} {NOT_SLOW}",
        "3.14": OWN,
    }.get(one, f"{OWN} {NOT_SLOW}")
    about = "tests that asan leaves out" if one == "3.13" else "our own tests"
    stage(one, about, f"{PYTEST} {which} {NOT_ASYNCIO}", one)
for one in ("3.11", *VERSIONS, "3.14t"):
    stage(
        f"{one}-conf",
        "CPython's test_asyncio",
        f"python tests/conformance/run.py --name {one} "
        f"--junitxml {LOGS}/{one}-conf.xml",
        one,
        "",
        venv=".venv" if one == "3.11" else f".venv-{one}",
        gate=one == "3.14t",
    )

count_references(
    "refcount-all", "references, all tests", "tests/behaviour", True
)
sanitize("asan-abrupt", "ASan+UBSan, ends and faults", "abrupt", True)
stage(
    "threads",
    "calls in several threads, 10 minutes",
    "python tests/fuzz/threaded.py --seconds 600",
    "3.13t",
    "",
    venv=".venv-3.13t",
    gate=True,
)
for one in VERSIONS:
    own(f"{one}-oracle", "our own tests, both loops", one)
own("3.14t", "our own tests, both loops", "3.14t", WITHOUT_GIL)
for one in ("3.11", "3.13", "3.14"):
    stage(
        f"{one}-faults",
        "each call of 24 scenarios fails once",
        SWEEP,
        one,
        venv=".venv" if one == "3.11" else f".venv-{one}",
        gate=True,
    )
stage(
    "asan-faults",
    "24 scenarios, ASan+UBSan",
    SWEEP,
    "asan",
    venv=".venv-asan",
    gate=True,
    FASTLOOP_SANITIZE="address,undefined",
    FASTLOOP_SWEEP_PATIENCE="120",
    # A failed check ends the run, whose exit status is looked at.
    ASAN_OPTIONS="detect_leaks=0:allocator_may_return_null=1",
    UBSAN_OPTIONS="print_stacktrace=1:halt_on_error=1",
    PYTHONMALLOC="malloc",
)
stage(
    "generated-many",
    "100,000 generated programs",
    f"{PROGRAMS} --from mixed --programs 100000 --workers 3 --seed today",
    venv=".venv",
    gate=True,
)
stage(
    "soak",
    "10,000 connections, 2 minutes",
    "python tests/load/soak.py --minutes 2",
    needs="test",
    gate=True,
)
for mode in ("one-byte", "would-block", "coarse", "collect"):
    drawn = f"{PROGRAMS} --worst {mode} --programs 5000 --seed today"
    libraries = f"tests/interop -p tests.worst --worst {mode}"
    stage(
        f"worst-{mode}",
        "generated programs, and libraries', on a system at its worst",
        [drawn, f"{PYTEST} {libraries} {NOT_ASYNCIO}"],
        needs="test interop",
        venv=".venv-worst",
        gate=True,
    )
stage(
    "day",
    "20 million callbacks, 2 million timers, 200,000 connections",
    "python tests/load/day.py --share 0.02",
    needs="test",
    gate=True,
)
stage(
    "networks",
    "networks that are not loopback",
    "python tests/load/networks.py",
    needs="test",
    gate=True,
)
stage(
    "hostile",
    "slow, silent, endless peers",
    "python tests/load/hostile.py",
    needs="test",
    gate=True,
)
stage(
    "fuzz",
    "fuzzers, 2 minutes each",
    "python tests/fuzz/run.py --seconds 120",
    needs="fuzz",
    gate=True,
    CC="clang",
    # clang knows no -fno-strict-overflow beside this Python's flags.
    FASTLOOP_WERROR="0",
    FASTLOOP_SANITIZE="fuzzer-no-link,address,undefined",
)
newcomer("readme-bench", "make bench on a new Debian", "make bench", gate=True)
stage(
    "wheel",
    "a wheel without libuv",
    "tools/try-wheel .venv-wheel/bin/python",
    needs="wheel",
    gate=True,
)
stage(
    "3.14-all",
    "the real programs",
    f"{PYTEST} tests/interop",
    "3.14",
    "test interop",
    gate=True,
)
stage(
    "libuv-1.48",
    "behaviour on libuv 1.48",
    ".ci/libuv-1.48 tests/isolated/test_sqpoll.py tests/behaviour "
    + NOT_ASYNCIO,
    needs="",
    gate=True,
)
elsewhere("i386", "32 bits", "tests/unit tests/behaviour tests/fault")
elsewhere("arm64", "on qemu", ON_QEMU)
elsewhere("s390x", "on qemu, big-endian", ON_QEMU)
stage(
    "upstream",
    "uvicorn's, websockets' tests",
    "python tests/interop/upstream_suites.py",
    needs="",
    gate=True,
)
own("debug", "asserts on", "3.11", FASTLOOP_DEBUG="1")
own("clang", "built by clang", "3.13", CC="clang")
own("lto", "link-time optimisation", "3.13", FASTLOOP_LTO="1")
for half in (0, 1):
    # A report of a race fails the session, whatever became of the test.
    reports = f"{LOGS}/races-{half}"
    races = (
        f"rm -f {reports}.*; "
        f'"$VENV/bin/"{PYTEST} {" ".join(THREADED[half::2])} {NOT_FORKED}; '
        f"code=$?; cat {reports}.* 2>/dev/null && exit 3; exit $code"
    )
    stage(
        f"tsan-{half}",
        f"ThreadSanitizer, half {half} of the tests with threads",
        shlex.join(["sh", "-c", races]),
        "tsan",
        venv=".venv-tsan",
        gate=True,
        # A test's program may take half of it (isolated_scripts.LIMIT): one
        # imports asyncio in four subinterpreters, in over two minutes.
        limit=600,
        FASTLOOP_SANITIZE="thread",
        # The children that tests fork start threads of their own; a daemon
        # thread counts as a leaked one.
        TSAN_OPTIONS=f"suppressions={TOP}/.ci/tsan.supp log_path={reports} "
        "die_after_fork=0 report_thread_leaks=0",
    )
