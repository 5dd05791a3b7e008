"""`run` makes a program see what it sees without it, but for its loop.

Most tests run one program both ways and compare all that comes out.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys

import pytest
from cli_helpers import LIMIT, environment

from fastloop.cli import COMMANDS

KIND = """
import asyncio

async def kind():
    return type(asyncio.get_running_loop()).__module__.partition(".")[0]
"""


@pytest.fixture
def both(fastloop_command):
    """both(*words, flags=()) runs a program both ways; returns `run`'s end.

    Status, output and errors must be the same.
    """

    def both(*words, flags=(), stdin=None):
        plain = fastloop_command.python(*flags, *words, stdin=stdin)
        run = fastloop_command.python(
            *flags, "-m", "fastloop", "run", *words, stdin=stdin
        )
        assert run.returncode == plain.returncode, run.stderr
        assert run.stdout == plain.stdout
        assert run.stderr == plain.stderr
        return run

    both.write = fastloop_command.write
    return both


LOOK = """
import sys
print(__name__, sys.argv, sys.path[0], __package__)
print(__spec__ and __spec__.name)
print(sorted(globals()), globals().get("__file__"), type(__loader__))
print(sys.modules["__main__"].__dict__ is globals())
"""


@pytest.mark.parametrize("flags", [(), ("-P",), ("-X", "dev")], ids=str)
def test_a_script_sees_what_it_sees_without(both, flags):
    both.write("look.py", LOOK)
    both("look.py", "one", "-m", "--help", flags=flags)


def test_a_module_sees_what_it_sees_without(both):
    both.write("look.py", LOOK)
    assert "look.py" in both("-m", "look", "one").stdout


def test_code_sees_what_it_sees_without(both):
    assert "-c" in both("-c", LOOK, "one", "-x").stdout


def test_a_folder_and_stdin_are_programs_too(both, tmp_path):
    (tmp_path / "pack").mkdir()
    both.write("pack/__main__.py", LOOK)
    both("pack", "one")
    assert "['-', 'one']" in both("-", "one", stdin=LOOK).stdout


def test_a_link_to_a_script_gives_the_folder_of_its_target(both, tmp_path):
    (tmp_path / "deep").mkdir()
    both.write("deep/look.py", LOOK)
    (tmp_path / "link.py").symlink_to("deep/look.py")
    both("link.py")


@pytest.mark.parametrize(
    "end",
    [
        "sys.exit(7)",
        "sys.exit('why')",
        "sys.exit()",
        "raise KeyboardInterrupt",
        "os.kill(os.getpid(), signal.SIGTERM)",
        "import nothing_like_it",
        "def f(): 1 / 0\nf()",
        "x = = 3",
        "try: 1 / 0\nexcept Exception as e: raise OSError('b') from e",
        "import atexit; atexit.register(print, 'at exit')\n1 / 0",
        "sys.excepthook = lambda *a: print(a[1], a[2].tb_lineno)\n1 / 0",
    ],
)
def test_it_ends_as_without(both, end):
    both.write("end.py", f"import os, signal, sys\n{end}\n")
    both("end.py")


def test_an_error_in_a_module_is_shown_as_without(both):
    both.write("fails.py", "def f():\n    1 / 0\nf()\n")
    assert both("-m", "fails").returncode == 1


ALL_WAYS = (
    KIND
    + """
def own(loop):
    try:
        return loop.run_until_complete(kind())
    finally:
        loop.close()

print(asyncio.run(kind()))
print(own(asyncio.new_event_loop()))
with asyncio.Runner() as runner:
    print(runner.run(kind()))
if hasattr(asyncio, "EventLoop"):
    with asyncio.Runner(loop_factory=asyncio.EventLoop) as runner:
        print(runner.run(kind()))
"""
)


@pytest.mark.parametrize("flags", [(), ("-X", "dev")], ids=str)
def test_every_default_loop_is_fastloop_and_nothing_warns(
    fastloop_command, flags
):
    fastloop_command.write("ways.py", ALL_WAYS)
    done = fastloop_command.python(
        *flags, "-W", "error", "-m", "fastloop", "run", "ways.py"
    )
    assert (done.returncode, done.stderr) == (0, "")
    assert set(done.stdout.split()) == {"fastloop"}
    assert len(done.stdout.split()) == 3 + (sys.version_info >= (3, 13))


def test_a_loop_that_the_program_names_stays(fastloop_command):
    code = KIND + (
        "with asyncio.Runner(loop_factory=asyncio.SelectorEventLoop) as r:\n"
        "    print(r.run(kind()))\n"
    )
    assert fastloop_command("run", "-c", code).stdout == "asyncio\n"


def test_pools_of_every_start_method_run_on_fastloop(fastloop_command):
    fastloop_command.write(
        "pool.py",
        KIND
        + """
import multiprocessing, os
from concurrent.futures import ProcessPoolExecutor

def child(item):
    return type(item).__name__, asyncio.run(kind())

class Item: pass

if __name__ == "__main__":
    os.mkdir("elsewhere")
    os.chdir("elsewhere")
    for method in ("fork", "spawn", "forkserver"):
        context = multiprocessing.get_context(method)
        with ProcessPoolExecutor(1, context) as pool:
            print(method, *pool.submit(child, Item()).result())
""",
    )
    done = fastloop_command("run", "-W", "ignore", "pool.py")
    assert done.stdout.splitlines() == [
        f"{method} Item fastloop" for method in ("fork", "spawn", "forkserver")
    ]


def test_uvicorns_automatic_choice_is_fastloop(fastloop_command):
    pytest.importorskip("uvicorn", reason="needs uvicorn")
    code = (
        "import uvicorn\n"
        "config = uvicorn.Config(lambda: 0)\n"
        "loop = config.get_loop_factory()()\n"
        "print(type(loop).__module__)\n"
        "loop.close()\n"
    )
    assert fastloop_command("run", "-c", code).stdout == "fastloop.loop\n"


def test_options_of_python_may_come_first(fastloop_command):
    code = "import sys; print(sys.flags.dev_mode, sys.argv, sys.warnoptions)"
    done = fastloop_command(
        "run", "-Xdev", "-W", "error", "-c", code, "-X", "x"
    )
    assert done.stdout == "True ['-c', '-X', 'x'] ['default', 'error']\n"


def test_ctrl_c_is_the_programs(fastloop_command):
    fastloop_command.write(
        "wait.py",
        """
import asyncio
async def main():
    print("ready", flush=True)
    try:
        await asyncio.sleep(1000)
    finally:
        print("cleaned")
asyncio.run(main())
""",
    )
    process = subprocess.Popen(
        [sys.executable, "-m", "fastloop", "run", "wait.py"],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        cwd=fastloop_command.folder,
        env=environment(),
        start_new_session=True,
    )
    assert process.stdout.readline() == "ready\n"
    os.killpg(process.pid, signal.SIGINT)
    out, err = process.communicate(timeout=LIMIT)
    assert out == "cleaned\n"
    assert process.returncode == -signal.SIGINT
    assert "KeyboardInterrupt" in err
    assert "fastloop/cli" not in err


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (["nope.py"], "there is no program nope.py"),
        (["-m", "no_such"], "there is no module no_such"),
        (["-m"], "run -m wants one word more"),
        (["--nope"], "run knows no option --nope"),
        ([], "run wants a program: prog.py, -m module, -c code"),
        (["."], ". is a folder without __main__.py"),
    ],
    ids=str,
)
def test_no_program_is_one_sentence(fastloop_command, words, sentence):
    assert fastloop_command.refused("run", *words) == sentence


def test_an_unknown_command_is_one_sentence(fastloop_command):
    assert "did you mean doctor?" in fastloop_command.refused("docter")
    shown = fastloop_command("--help").stdout
    for name in COMMANDS:
        assert name in shown
        assert name in fastloop_command(name, "--help").stdout


def test_importing_fastloop_does_not_import_the_command_line(
    fastloop_command,
):
    code = "import fastloop, sys; print('fastloop.cli' in sys.modules)"
    assert fastloop_command.python("-c", code).stdout == "False\n"
