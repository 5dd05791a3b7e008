"""`python -m fastloop bench`: what it finds, says and leaves."""

import json
import signal
import sys

import pytest
from builds import environment
from cli_helpers import (
    interrupt,
    processes_in,
    wait_for,
)

#: Short: what is found does not matter here.
SHORT = ("--quiet", "--runs", "2", "--loops", "asyncio,fastloop")
HTTP = (*SHORT, "--seconds", "0.1")
PROGRAM = "import asyncio; asyncio.run(asyncio.sleep(0))"
APP = """
async def app(scope, receive, send):
    if scope["type"] == "lifespan":
        raise NotImplementedError
    start = {"type": "http.response.start", "status": STATUS}
    await send(start | {"headers": [(b"content-length", b"2")]})
    await send({"type": "http.response.body", "body": b"ok"})
"""


#: Begins a program that counts its runs, of which two warm up.
COUNTED = """
import pathlib, sys, time
file = pathlib.Path("count")
runs = file.stat().st_size + 1 if file.exists() else 1
file.write_text("x" * runs)
"""
TO_FILE = (*SHORT, "--json", "found.json")


def found_in(command):
    """Return what a command has stored."""
    return json.loads((command.folder / "found.json").read_text())["fastloop"]


def test_a_program_is_measured_on_each_loop(fastloop_command):
    done = fastloop_command("bench", *TO_FILE, "-c", PROGRAM)
    found = found_in(fastloop_command)
    assert found["loops"] == ["asyncio", "fastloop"]
    assert found["notes"] == [] and found["cut"] is None
    for runs in found["runs"].values():
        keys = {"time", "loop", "cpu", "memory"}
        assert [set(run) for run in runs] == [keys] * 2
        assert all(value > 0 for run in runs for value in run.values())
    assert found["summary"][0] in done.stdout.replace("\n", " ")
    for title in ("time (s)", "CPU time (s)", "peak memory (MiB)"):
        assert title in done.stdout
    legend = (
        "vs: how many times as good fastloop is; ?: too few rounds to tell"
    )
    assert f"\n\n{legend}\n\n" in done.stdout
    assert "interval" not in done.stdout and " to 0" not in done.stdout


def test_progress_is_a_line_a_round(fastloop_command):
    done = fastloop_command("bench", *SHORT[1:], "-c", PROGRAM)
    assert done.stderr.splitlines() == [
        "warming up asyncio",
        "warming up fastloop",
        "round 1 of 2",
        "round 2 of 2",
    ]


def test_start_up_is_reported_on_its_own(fastloop_command):
    """It is what passes before the first loop, which may be a child's."""
    code = (
        "import os, time; time.sleep(0.5)\n"
        f"os.wait() if os.fork() else exec({PROGRAM!r})"
    )
    done = fastloop_command("bench", *TO_FILE, "-c", code)
    for runs in found_in(fastloop_command)["runs"].values():
        assert all(0 < run["loop"] < run["time"] - 0.5 for run in runs)
    assert "without start-up (s)" in done.stdout


@pytest.mark.parametrize(
    ("words", "title"),
    [
        (("-m", "timeit", "-n", "1"), "-m timeit -n 1"),
        (("-mtimeit", "-n1", "--s=1"), "-m timeit -n1 --s=1"),
        (("-c1", "--quiet", "-m", "x"), "-c 1 --quiet -m x"),
    ],
)
def test_what_follows_a_program_is_its_own(fastloop_command, words, title):
    """Also behind a name that is in one word with its option."""
    done = fastloop_command("bench", *SHORT, *words)
    assert done.stdout.startswith(f"{title}: geometric means of 2 rounds")


def test_what_takes_no_loop_is_said(fastloop_command):
    done = fastloop_command("bench", *SHORT, "-c", "pass")
    assert "took no loop from asyncio's default" in done.stdout
    assert "times" not in done.stdout.splitlines()[-1]
    row = next(x for x in done.stdout.splitlines() if x.startswith("time"))
    assert row.endswith(" -")
    assert "vs: how many" not in done.stdout


def test_a_loop_that_the_program_chose_has_no_ratio(fastloop_command):
    chosen = (
        "import asyncio\n"
        "with asyncio.Runner(loop_factory=asyncio.SelectorEventLoop) as one:\n"
        "    one.run(asyncio.sleep(0))\n"
    )
    done = fastloop_command("bench", *TO_FILE, "--runs", "1", "-c", chosen)
    found = found_in(fastloop_command)
    assert found["unused_loops"] == ["fastloop"]
    said = "in the runs of fastloop it did not use the loop"
    assert said in done.stdout.replace("\n", " ")


NAMED = """
import asyncio
asyncio.run(asyncio.sleep(0), loop_factory=asyncio.EventLoop)
"""


@pytest.mark.parametrize(
    ("loops", "code"),
    [
        ("asyncio,fastloop:new_event_loop", PROGRAM),
        pytest.param(
            "asyncio,fastloop",
            NAMED,
            marks=pytest.mark.skipif(
                sys.version_info < (3, 13), reason="asyncio has no EventLoop"
            ),
        ),
    ],
)
def test_a_loop_by_another_name_is_counted(fastloop_command, loops, code):
    """A function that makes it, or asyncio's name of the default."""
    words = ("bench", *SHORT[:3], "--loops", loops, "-c", code)
    assert "took no loop" not in fastloop_command(*words).stdout


def test_a_uvloop_that_cannot_be_imported_is_left_out(fastloop_command):
    folder = fastloop_command.folder / "broken"
    folder.mkdir()
    (folder / "uvloop.py").write_text("raise ImportError('no libuv')")
    path = f"{folder}:{environment()['PYTHONPATH']}"
    words = ("bench", "--quiet", "--runs", "1", "-c", PROGRAM)
    done = fastloop_command.python("-m", "fastloop", *words, PYTHONPATH=path)
    text = "fastloop: uvloop is left out: ImportError: no libuv\n"
    assert (done.returncode, done.stderr) == (0, text)
    assert "uvloop" not in done.stdout


def test_the_interpreters_options_are_those_of_the_runs(fastloop_command):
    words = ("-OWignore", "-m", "fastloop", "bench", *TO_FILE)
    done = fastloop_command.python(*words, "-c", "assert 0")
    assert done.returncode == 0, done.stderr
    command = found_in(fastloop_command)["settings"]["command"]
    assert "-O" in command and "-Wignore -m fastloop bench" in command


def test_the_surroundings_that_change_results_are_kept(fastloop_command):
    words = ("bench", *TO_FILE, "-c", PROGRAM)
    env = {"PYTHONASYNCIODEBUG": "1", "FASTLOOP_DISABLE": "cork"}
    done = fastloop_command.python("-m", "fastloop", *words, **env)
    assert done.returncode == 0, done.stderr
    kept = found_in(fastloop_command)["settings"]["environment"].split()
    assert {f"{name}={value}" for name, value in env.items()} <= {*kept}
    assert "asyncio's debug mode was on, which makes loops" in done.stdout


def test_whether_there_is_a_gil_is_what_the_runs_say(fastloop_command):
    """A module of the program, or a loop, may turn it on."""
    code = (
        "import asyncio, sys\n"
        "loop = asyncio.new_event_loop()\n"
        "loop.run_until_complete(asyncio.sleep(0))\n"
        "loop.close()\n"
        "on = type(loop).__module__.startswith('asyncio')\n"
        "sys._is_gil_enabled = lambda: on\n"
    )
    done = fastloop_command("bench", *SHORT, "-c", code)
    assert "The GIL was on only in the runs of asyncio." in done.stdout


def test_an_application_is_measured_under_load(fastloop_command):
    pytest.importorskip("uvicorn", reason="uvicorn is not installed")
    fastloop_command.write("app.py", APP.replace("STATUS", "200"))
    fastloop_command(
        *("bench", *HTTP, "--json", "found.json"),
        *("--http", "app:app", "--path", "/x"),
    )
    found = found_in(fastloop_command)
    keys = {"rate", "cpu", "memory", "p50", "p99"}
    for runs in found["runs"].values():
        assert [set(run) for run in runs] == [keys] * 2
        assert all(run["p50"] <= run["p99"] for run in runs)
    settings = found["settings"]
    assert "bench --quiet" in settings["command"]
    assert settings["server"].startswith("uvicorn ")
    assert settings["http parser"].startswith(("httptools ", "h11 "))
    assert processes_in(fastloop_command.folder) == []


# -- what cannot be measured --------------------------------------------------


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (["prog.py"], "there is no program prog.py that"),
        (["-m", "nothing_of_it"], "No module named nothing_of_it"),
        (["--loops", "asyncio,noloop", "-c", ""], "noloop is not installed"),
        (["--loops", "asyncio", "-c", ""], "two loops or more"),
        (["--runs", "0", "-c", ""], "--runs must be 1 to 10,000"),
        (["--path", "/a b", "--http", "a:b"], "has %20 for a space"),
        (["--seconds", "0", "--http", "a:b"], "--seconds must be 0.1 to 3600"),
        (["--path", "/x", "-c", ""], "--path needs --http"),
        (["--seconds", "2", "-c", ""], "--seconds needs --http"),
        (["--json", ".", "-c", ""], "cannot write ."),
        (["--json", "no/where.json", "-c", ""], "cannot write no/where.json"),
        (["--http", "app:app", "-c", ""], "not both"),
        (["--http", "app:app", "--path", "x"], "--path begins with /"),
        (["--http", "app"], "such as main:app; app is not that"),
        (["--http", "app.py:app"], "app.py:app is not that"),
        (["--http", "in/app:app"], "in/app:app is not that"),
        (["-c", "import sys; sys.exit(3)"], "ended with status 3"),
        (["-c", "1/0"], "ZeroDivisionError"),
        (["--loops", ".x,asyncio", "-c", ""], ".x is not installed"),
        (["-c", "open('/dev/tty')"], "'/dev/tty'"),
        (["--timeout", "0", "-c", ""], "--timeout must be more than 0"),
        (["-c", "input()"], "EOF when reading a line"),
        (["-c", "import os; os.abort()"], "was ended by signal 6, Aborted"),
        (
            ["--timeout", "0.2", "-c", "import time; time.sleep(3600)"],
            "did not end in 0.2 s, which --timeout sets",
        ),
        (
            ["-c", "print('x' * 10**8); import sys; sys.exit('full')"],
            "ended with status 1:\n    full",
        ),
    ],
)
def test_what_cannot_be_measured_is_one_sentence(
    fastloop_command, words, sentence
):
    assert sentence in fastloop_command.refused("bench", "--quiet", *words)


@pytest.mark.parametrize(
    ("app", "sentence"),
    [
        (None, 'Could not import module "app"'),
        ("app = None", "answered 500 to GET /"),
        ("", 'Attribute "app" not found in module "app"'),
        (APP.replace("STATUS", "500"), "answered 500 to GET /"),
    ],
)
def test_a_server_that_does_not_serve_is_one_sentence(
    fastloop_command, app, sentence
):
    pytest.importorskip("uvicorn", reason="uvicorn is not installed")
    if app is not None:
        fastloop_command.write("app.py", app)
    words = ("bench", *HTTP, "--http", "app:app")
    assert sentence in fastloop_command.refused(*words)
    assert processes_in(fastloop_command.folder) == []


def test_what_was_measured_until_a_failure_is_kept(fastloop_command):
    """Two warm up, two are the first round, the fifth fails."""
    fastloop_command.write("prog.py", f"{COUNTED}sys.exit(runs == 5)")
    done = fastloop_command("bench", *TO_FILE, "prog.py", status=2)
    assert done.stderr.count("\n") == 1 and "status 1" in done.stderr
    found = found_in(fastloop_command)
    assert list(map(len, found["runs"].values())) == [1, 1]
    assert "status 1" in found["cut"]
    assert "Not complete" in done.stdout


def test_a_table_is_shown_though_its_file_cannot_be_written(fastloop_command):
    """The last run of the program takes the folder away."""
    (fastloop_command.folder / "sub").mkdir()
    takes = "runs == 6 and pathlib.Path('sub').rmdir()"
    fastloop_command.write("prog.py", COUNTED + takes)
    words = ("bench", *SHORT, "--json", "sub/found.json", "prog.py")
    done = fastloop_command(*words, status=2)
    assert "peak memory (MiB)" in done.stdout
    assert done.stderr.startswith("fastloop: cannot write sub/found.json: ")


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_keeps_what_there_is_and_leaves_no_process(
    fastloop_command, number
):
    """The fifth run of the program waits, and cleans up when interrupted."""
    fastloop_command.write(
        "prog.py",
        f"{COUNTED}try:\n"
        "    runs == 5 and pathlib.Path('waits').touch()\n"
        "    time.sleep(3600 if runs == 5 else 0)\n"
        "finally:\n"
        "    pathlib.Path('ended').write_text('x' * runs)\n",
    )
    process = fastloop_command.start("bench", *TO_FILE, "prog.py")
    wait_for((fastloop_command.folder / "waits").exists, "the fifth run")
    status, out, err = interrupt(process, number)
    assert status == 130
    assert "Traceback" not in err
    ended = fastloop_command.folder / "ended"
    assert ended.read_text() == "xxxxx"
    assert "Not complete: it was stopped" in out
    assert found_in(fastloop_command)["cut"] == "it was stopped"
    assert processes_in(fastloop_command.folder) == []
