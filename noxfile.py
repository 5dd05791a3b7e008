"""The stages of .ci/run, a session each: what runs, and on which Python.

    nox --list       names and describes them
    nox -s 3.14      runs one of them; .ci/run runs them side by side

A session without a tag runs for each change: what can find something new.
The others are the gate, in parts named by their tag, each at most 30 minutes
on two idle cores; .ci/run --list shows them.

An environment is made by tools/setup-env and not by nox, because Debian 12
lacks 3.14 and 3.15: they run inside a Debian tree of their own (.ci/pythons),
which nox cannot enter.  The extension is built in place, so all sessions of a
part build it for one Python with the same options.
"""

from __future__ import annotations

import datetime
import os
import re
import shlex
from pathlib import Path

import nox

TOP = Path(__file__).resolve().parent
LOGS = TOP / "build" / "ci"

nox.options.default_venv_backend = "none"
nox.options.error_on_external_run = False

#: What makes the extension another one.
SWITCHES = ("CC", "FASTLOOP_DEBUG", "FASTLOOP_SANITIZE")
#: The switches of a part's builds for one Python.
BUILDS: dict[tuple[str, str], dict[str, str]] = {}

#: Every test of ours but those of real programs and of the sources.
OWN = """tests/unit tests/behaviour tests/isolated tests/fault
tests/differential"""
#: Real programs that need a server, which a newcomer's machine lacks: what the
#: README's test command skips.
WITH_SERVERS = " ".join(
    f"tests/interop/test_{name}.py" for name in ("postgres", "redis")
)
BEHAVIOUR = sorted(
    str(path.relative_to(TOP))
    for path in TOP.glob("tests/behaviour/*/test_*.py")
    if not path.name.startswith("test_pytest_")
)


def behaviour(names: str) -> str:
    """Return the files of behaviour tests of these names, without test_."""
    found = {Path(one).stem.removeprefix("test_"): one for one in BEHAVIOUR}
    return " ".join(found[name] for name in names.split())


#: One file for each kind of object.  A test is run at least five times for its
#: references: all files take eight hours, so each day has its share of them.
COUNTED = "tests/unit tests/isolated/test_refcount_plugin.py " + behaviour(
    """context ending exceptions executor fd_callbacks handles
    lifecycle readers reading run scheduling tasks threadsafe timers"""
)
SHARES = 20
COUNTED_TODAY = " ".join(
    BEHAVIOUR[datetime.date.today().toordinal() % SHARES :: SHARES]
)
#: asyncio's half of the behaviour tests runs on 3.11 for each change, and on
#: the other versions in the gate.
NOT_ASYNCIO = "-k 'not [asyncio'"
#: Leaves out what takes long and seldom differs between versions: commands and
#: pytest's plugins, which start hundreds of processes, floods of keys, whole
#: scenarios, each failing call on both loops, what judges drawn programs.
#: `readme` runs them, and on other versions the gate.
NOT_SLOW = """--ignore=tests/behaviour/cli
--ignore-glob=tests/behaviour/package/test_pytest_*.py
--ignore=tests/behaviour/tls/test_tls_key_floods.py
--ignore=tests/fault/test_scenarios.py
--ignore=tests/fault/test_same_errors.py
--ignore=tests/differential/test_programs.py"""
#: What is done in Python, or takes much of a sanitizer's time for few lines of
#: C: asyncio's TLS on our transports, metrics seen from outside, slow polls.
IN_PYTHON = (
    "no-native or test_top or test_metrics_socket or test_switched_off "
    "or test_slow_systems"
)
#: Without a GIL the GC visits all objects, also those of tests that have not
#: run yet: two processes take half the time of one.
NETWORK = "tests/behaviour/tls tests/behaviour/transport"
WITHOUT_GIL = " ".join(
    str(path.relative_to(TOP))
    for path in sorted(TOP.glob("tests/isolated/test_free_thread*.py"))
)
MANY_LOOPS = "tests/interop/test_one_process_many_loops.py"
#: What the gate has besides: clang-tidy.
SHORT_LINT = "--ignore=tests/lint/test_analysis.py"
LINT = f"make lint TURN='flock {LOGS}/setup.lock'"
#: What ThreadSanitizer looks at; the rest has one thread.
THREADED = sorted(
    str(path.relative_to(TOP))
    for folder in ("unit", "behaviour", "isolated")
    for path in (TOP / "tests" / folder).rglob("test_*.py")
    if re.search("threading|to_thread|[Ee]xecutor", path.read_text())
    # They start processes, whose threads are others' to look at.
    and path.parent.name not in ("cli", "package")
)
#: Calls by several threads, at random.
THREADS = "tests/fuzz/threaded.py"
#: ThreadSanitizer takes a thread of a forked child for the parent's thread of
#: that number, and ends the child ("dup thread with used id").
NOT_FORKED = (
    "-k 'not [asyncio and not fastloop-fork and not child_inherits_a_lock "
    "and not child_leaves_the_parents_run and not child_sends_its_own'"
)
TESTS = "-m pytest -q"
PYTEST = f"python {TESTS}"
#: Judges the reports of sanitizers.  After it come their name, 1 where leaks
#: count, and words for Python.
JUDGED = f"python .ci/leaks.py {LOGS}"
#: Every call of whole scenarios, one after the other.
SWEEP = "python tests/fault/sweep.py"
#: Random programs.  Outside the gate their seed is fixed, so that a change
#: does not fail because of other programs; the gate has a new seed each day.
PROGRAMS = "python tests/differential/programs.py --workers 2"
CORPUS = f"{PROGRAMS} --from corpus"
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
    part: str = "",
    limit: int = TEST_LIMIT,
    **env: str,
) -> None:
    """Define the session NAME of PART, which runs COMMAND, or each of several.

    PYTHON is a name of .ci/pythons, NEEDS are groups of tools/setup-env,
    LIMIT is seconds of one test, ENV are more variables.  A first word
    `python` is the environment's, which all sessions of one Python share.
    """
    venv = ".venv" if python == "3.11" else f".venv-{python}"
    abi = "3.14t" if python == "tsan" else python
    switches = {key: env[key] for key in SWITCHES if key in env}
    if BUILDS.setdefault((part, abi), switches) != switches:
        raise ValueError(f"{name}: {part} builds for {abi} in two ways")

    def session(session: nox.Session) -> None:
        LOGS.mkdir(parents=True, exist_ok=True)
        variables = {
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
            session.run(
                *(".ci/pythons", "run", python),
                *shlex.split(words),
                env=variables,
            )

        # Sessions that run at once share a source tree: only one builds.
        run(f"flock {LOGS}/setup.lock tools/setup-env build {needs}")
        for words in [command] if isinstance(command, str) else command:
            run(words)

    session.__doc__ = about
    nox.session(session, name=name, tags=[part] if part else [])


def newcomer(name: str, about: str, command: str, part: str = "") -> None:
    """Define a session that runs COMMAND as the README's reader would.

    That is in a clone, on a Debian that has git and make alone: its packages
    are those that the command itself installs.
    """

    def session(session: nox.Session) -> None:
        session.run(
            *(".ci/pythons", "newcomer", *shlex.split(command)),
            env={"PYTEST_ADDOPTS": f"--junitxml=build/ci/{name}.xml"},
        )

    session.__doc__ = about
    nox.session(session, name=name, tags=[part] if part else [])


def sanitize(
    name: str, about: str, command: str, part: str = "", **env: str
) -> None:
    """Define a session under ASan and UBSan; a failed check ends a process."""
    stage(
        name,
        about,
        command,
        "asan",
        part=part,
        limit=600,
        **{
            "FASTLOOP_SANITIZE": "address,undefined",
            "ASAN_OPTIONS": "detect_leaks=0:allocator_may_return_null=1",
            "UBSAN_OPTIONS": "print_stacktrace=1:halt_on_error=1",
            "PYTHONMALLOC": "malloc",
            **env,
        },
    )


def own(
    name: str,
    python: str,
    part: str,
    tests: str = OWN,
    about: str = "our tests, both loops",
    **env: str,
) -> None:
    """Define a session that runs every test of ours, or TESTS."""
    stage(name, about, f"{PYTEST} {tests}", python, part=part, **env)


def conformance(python: str, part: str = "") -> None:
    """Define a session that runs CPython's own tests of asyncio."""
    name = f"{python}-conf"
    stage(
        name,
        "CPython's test_asyncio",
        f"python tests/conformance/run.py --name {python} "
        f"--junitxml {LOGS}/{name}.xml",
        python,
        part=part,
    )


# What is slow goes first, so that all workers end together, and what needs an
# interpreter that is not there is not beside another that waits for it.
newcomer(
    "readme",
    "make test on a new Debian",
    f"make test WORKERS= ARGS='-q -raR {AGAIN}'",
)
sanitize(
    "asan",
    "ASan+UBSan, leaks",
    f"{JUDGED}/asan-report 1 {TESTS} tests/unit tests/behaviour "
    f"tests/fault/test_limits.py tests/fault/test_net_calls.py {NOT_SLOW} "
    f"-k 'not [asyncio and not ({IN_PYTHON})' "
    "--ignore=tests/behaviour/package/test_metrics_adapters.py",
)
stage(
    "3.14t",
    "what threads may meet",
    [
        f"{PYTEST} tests/unit {NETWORK} {WITHOUT_GIL} {MANY_LOOPS} "
        f"{NOT_SLOW} --ignore=tests/unit/test_tls_programs.py "
        "-k 'not [asyncio and not no-native'",
        f"python {THREADS} --seconds 60 --seed 20250101",
    ],
    "3.14t",
)
own(
    "3.14",
    "3.14",
    "",
    f"{OWN} {NOT_SLOW} {NOT_ASYNCIO}",
    "our tests, fastloop's half",
)
stage(
    "lint",
    "style, layers, sizes, stubs",
    f'{LINT} ARGS="-q {SHORT_LINT}"',
    needs="test lint",
)
stage(
    "3.11-programs",
    "the corpus, 1,000 programs",
    [CORPUS, f"{PROGRAMS} --from mixed --programs 1000 --seed 20250101"],
    needs="test lint",
)
sanitize("asan-programs", "the corpus, ASan+UBSan", CORPUS)
stage(
    "libuv",
    "our tests, waiting by libuv",
    f"{PYTEST} tests/unit tests/behaviour tests/isolated {NOT_SLOW} "
    f"{NOT_ASYNCIO}",
    FASTLOOP_POLLER="libuv",
)
stage(
    "counts",
    "instructions of 15 operations",
    "python tests/counts/count.py",
    needs="test bench",
)
for one in ("3.14", "3.14t"):
    stage(f"{one}-programs", "the corpus", CORPUS, one)
for one in ("3.11", "3.14", "3.14t"):
    conformance(one)

for one in ("3.12", "3.13", "3.14", "3.15"):
    own(f"{one}-all", one, "versions")
for one in ("3.12", "3.13", "3.15"):
    conformance(one, "versions")
rest_of_own = " ".join(f"--ignore={folder}" for folder in NETWORK.split())
own("3.14t-network", "3.14t", "free-threading", NETWORK)
own("3.14t-rest", "3.14t", "free-threading", f"{OWN} {rest_of_own}")
stage(
    "threads",
    "calls in threads, 10 minutes",
    f"python {THREADS} --seconds 600",
    "3.14t",
    part="free-threading",
)
for name, about, words in (
    ("0", "half of them", f"{TESTS} {' '.join(THREADED[0::2])} {NOT_FORKED}"),
    ("1", "half of them", f"{TESTS} {' '.join(THREADED[1::2])} {NOT_FORKED}"),
    ("threads", "drawn calls", f"{THREADS} --seconds 600"),
):
    stage(
        f"tsan-{name}",
        f"ThreadSanitizer, {about}",
        f"{JUDGED}/races-{name} 0 {words}",
        "tsan",
        part="races",
        # A test's program may take half of it (isolated_scripts.LIMIT): one
        # imports asyncio in four subinterpreters, in over two minutes.
        limit=600,
        FASTLOOP_SANITIZE="thread",
    )
for name, files in (("each", COUNTED), ("day", COUNTED_TODAY)):
    stage(
        f"references-{name}",
        "references that grow",
        f"{PYTEST} {files} -p tests.refcount --refcount {NOT_ASYNCIO}",
        "3.14d",
        part="references",
        limit=1800,  # of all the runs of a test
        FASTLOOP_DEBUG="1",
    )
sanitize(
    "asan-abrupt",
    "ASan+UBSan, ends and faults",
    # At its end CPython frees the states of daemon threads while those still
    # let go of the GIL: its own fault.
    f"{JUDGED}/abrupt-report 0 {TESTS} tests/isolated "
    "tests/fault/test_memory.py tests/behaviour/tls/test_tls_key_floods.py "
    "-k 'not [asyncio and not daemon_thread'",
    "sanitizers",
)
sanitize(
    "asan-python",
    "ASan+UBSan, what is in Python",
    f"{JUDGED}/python-report 1 {TESTS} tests/behaviour "
    f"tests/fault/test_slow_systems.py -k 'not [asyncio and ({IN_PYTHON})'",
    "sanitizers",
)
sanitize(
    "asan-faults",
    "each scenario, ASan+UBSan",
    SWEEP,
    "sanitizers",
    FASTLOOP_SWEEP_PATIENCE="120",
)
stage(
    "fuzz",
    "fuzzers, 2 minutes each",
    "python tests/fuzz/run.py --seconds 120",
    needs="fuzz",
    part="fuzz",
    CC="clang",
    # clang knows no -fno-strict-overflow beside this Python's flags.
    FASTLOOP_WERROR="0",
    FASTLOOP_SANITIZE="fuzzer-no-link,address,undefined",
)
# 3.13's are asan-faults, of the part sanitizers.
for one in ("3.11", "3.14"):
    stage(
        f"{one}-faults",
        "each call of each case fails",
        SWEEP,
        one,
        part="faults",
    )
stage(
    "programs",
    "40,000 programs of the day",
    f"{PROGRAMS} --from mixed --programs 40000 --seed today",
    part="programs",
)
for mode in ("one-byte", "would-block", "coarse", "collect"):
    drawn = f"{PROGRAMS} --worst {mode} --programs 5000 --seed today"
    libraries = f"tests/interop -p tests.worst --worst {mode}"
    stage(
        f"worst-{mode}",
        "on a system at its worst",
        [drawn, f"{PYTEST} {libraries} {NOT_ASYNCIO}"],
        needs="test interop",
        part="worst",
    )
for name, about, command in (
    ("soak", "10,000 connections, 2 minutes", "soak.py --minutes 2"),
    ("hostile", "slow, silent, endless peers", "hostile.py"),
):
    stage(name, about, f"python tests/load/{command}", part="load")
stage(
    "interop",
    "programs that need a server",
    f"{PYTEST} {WITH_SERVERS}",
    needs="test interop",
    part="interop",
)
stage(
    "3.14-interop",
    "the real programs",
    f"{PYTEST} tests/interop",
    "3.14",
    "test interop",
    part="interop",
)
stage(
    "upstream",
    "the suites of other projects",
    # Without second looks at whole suites: each looks twice at a test.
    f"{PYTEST} tests/interop/upstream_suites.py --reruns 0",
    part="interop",
    limit=3600,
)
stage(
    "lint-all",
    "the same, and clang-tidy",
    f"{LINT} ARGS=-q",
    needs="test lint",
    part="lint",
)
# A clone, so that nothing which lies about here gets into the sdist.  Of
# pyroma's ten points two are for addresses of the project and of its authors,
# which there are none to name of yet.
stage(
    "publish",
    "sdist, wheel, workflows",
    [
        f"rm -rf {LOGS}/clone",
        f"git clone -q {TOP} {LOGS}/clone",
        f"python -m build {LOGS}/clone",
        f"python -m check_manifest {LOGS}/clone",
        f"sh -c '.venv/bin/twine check --strict {LOGS}/clone/dist/*'",
        f"python -m check_wheel_contents {LOGS}/clone/dist",
        # It was compiled in another folder, and is the same as here.
        f"sh -c '.venv/bin/python -m zipfile -e {LOGS}/clone/dist/*.whl "
        f"{LOGS}/clone/wheel && cd {LOGS}/clone/wheel && "
        f"for one in fastloop/*.so; do cmp $one {TOP}/$one; done'",
        "python -m validate_pyproject pyproject.toml",
        f"python -m pyroma --min=8 {LOGS}/clone",
        ".venv/bin/zizmor --offline --no-progress .github",
        "sh -c '.venv/bin/check-jsonschema .github/workflows/*.yml "
        "--builtin-schema vendor.github-workflows'",
        "python -m check_jsonschema .github/dependabot.yml "
        "--builtin-schema vendor.dependabot",
        *(
            f"python -m cibuildwheel --platform {name} --archs all "
            "--print-build-identifiers"
            for name in ("linux", "macos")
        ),
    ],
    needs="publish",
    part="publish",
)
stage(
    "docs",
    "the site, strictly",
    "python -m mkdocs build --strict --clean",
    needs="docs",
    part="publish",
    NO_MKDOCS_2_WARNING="1",
)
# As they are typed; `readme` has the tests one by one, to look twice at some.
for one in ("bench", "test"):
    newcomer(
        f"readme-{one}",
        f"make {one} on a new Debian",
        f"make {one}",
        "publish",
    )
stage(
    "wheels",
    "each on a system without libuv, or on Wine",
    "tools/wheels --try 3.11-x86_64 3.13-x86_64 3.14-x86_64 3.14t-x86_64 "
    "3.15-x86_64 win_amd64 win_arm64 win32",
    needs="",
    part="publish",
)
for name, about, command in (
    (
        "conf",
        "CPython's test_asyncio",
        "python tests/conformance/run.py --name libuv "
        f"--junitxml {LOGS}/libuv-conf.xml",
    ),
    (
        "interop",
        "the real programs",
        f"{PYTEST} tests/interop {NOT_ASYNCIO}",
    ),
    (
        "programs",
        "5,000 programs",
        f"{PROGRAMS} --from mixed --programs 5000 --seed today",
    ),
):
    stage(
        f"libuv-{name}",
        f"{about}, libuv",
        command,
        needs="test interop",
        part="platforms",
        FASTLOOP_POLLER="libuv",
    )
stage(
    "i386",
    "32 bits",
    f"{PYTEST} tests/unit tests/behaviour tests/fault {NOT_ASYNCIO}",
    "i386",
    part="platforms",
    limit=600,
)
stage(
    "arm64",
    "a wheel on qemu",
    "tools/wheels --try 3.13-aarch64",
    needs="",
    part="platforms",
)
