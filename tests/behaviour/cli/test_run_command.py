"""`run` makes a program see what it sees without it, but for its loop.

Most tests run one program both ways and compare all that comes out.
"""

import os
import re
import signal
import sys
import zipfile

import pytest
from cli_helpers import interrupt, one_sentence

from fastloop import cli
from fastloop.cli.commands import wrapped

#: In a traceback, as those of `python -m cProfile` are.
OWN_FRAMES = re.compile(
    r'  File "(?:[^"]*/fastloop/|<frozen runpy>|[^"]*/runpy\.py)[^"]*", .*\n'
    r"(?:    .*\n)*"
)


def without_frames(text):
    """Return a traceback without run's frames, and so without its head."""
    text = text.replace("\r\n", "\n")
    return OWN_FRAMES.sub("", text).replace(
        "Traceback (most recent call last):\n", ""
    )


@pytest.fixture
def both(fastloop_command):
    """both(*words, flags=()) runs a program both ways; returns `run`'s end.

    Status, output and errors must be the same, but for the frames of `run`.
    """

    def both(*words, flags=(), stdin=None):
        plain = fastloop_command.python(*flags, *words, stdin=stdin)
        run = fastloop_command.python(
            *flags, "-m", "fastloop", "run", *words, stdin=stdin
        )
        assert run.returncode == plain.returncode, run.stderr
        assert run.stdout == plain.stdout
        assert without_frames(run.stderr) == without_frames(plain.stderr)
        return run

    both.write = fastloop_command.write
    return both


LOOK = """
import sys
print(__name__, sys.argv, sys.path[0], __package__)
print(__spec__ and __spec__.name, __doc__)
print(globals().get("__file__"), type(__loader__))
print(sys.modules["__main__"].__dict__ is globals())
"""


def archive(path, **files):
    """Write a zip archive, by names without `.py`."""
    with open(path, "wb") as file:
        file.write(b"#!/usr/bin/env python3\n")
        with zipfile.ZipFile(file, "w") as whole:
            for name, text in files.items():
                whole.writestr(f"{name}.py", text)


@pytest.mark.parametrize(
    ("words", "flags"),
    [
        (["look.py", "one", "-m", "--help"], ()),
        (["look.py"], ("-P",)),
        (["-m", "look", "one"], ("-X", "dev")),
        (["-m", "look", "one"], ("-P",)),
        (["-mlook"], ()),
        (["-c", LOOK, "one", "-x"], ()),
        (["pack", "one"], ()),
        (["app.pyz", "one"], ()),
        (["app", "one"], ("-P",)),
        # A link gives the folder of its target, a path through one the file
        # that the system finds.
        (["link.py"], ()),
        (["link/../look.py"], ()),
    ],
    ids=lambda words: "".join(words[:1]),
)
def test_a_program_sees_what_it_sees_without(both, tmp_path, words, flags):
    for folder in ("pack", "deep/sub"):
        (tmp_path / folder).mkdir(parents=True)
    for name in ("look.py", "pack/__main__.py", "deep/look.py"):
        both.write(name, LOOK)
    for name in ("app.pyz", "app"):
        archive(tmp_path / name, __main__=LOOK)
    (tmp_path / "link.py").symlink_to("deep/look.py")
    (tmp_path / "link").symlink_to("deep/sub")
    done = both(*words, flags=flags)
    assert "__main__" in done.stdout or flags == ("-P",)


def test_code_that_is_indented_runs_from_python_3_14_on(both):
    done = both("-c", "\n    if True:\n        print('''a\n   \n    b''')\n")
    assert (done.returncode == 0) == (sys.version_info >= (3, 14))


def test_a_script_runs_where_the_current_folder_was_deleted(fastloop_command):
    fastloop_command.write("look.py", "print('here')")
    code = (
        "import os, sys; os.mkdir('gone'); os.chdir('gone'); "
        "os.rmdir('../gone'); "
        "os.execv(sys.executable, [sys.executable, *sys.argv[1:]])"
    )
    path = str(fastloop_command.folder / "look.py")
    done = fastloop_command.python("-c", code, "-mfastloop", "run", path)
    assert (done.stdout, done.stderr) == ("here\n", "")


@pytest.mark.parametrize(
    "words",
    [
        ["-m", "nothing"],
        ["-m", "nothing.at.all"],
        ["-m", "there"],
        ["there"],
        ["there.zip"],
    ],
    ids=str,
)
def test_a_program_that_is_missing_is_reported_as_without(
    both, tmp_path, words
):
    (tmp_path / "there").mkdir()
    both.write("there/__init__.py", "")
    archive(tmp_path / "there.zip", other="")
    done = both(*words)
    assert done.returncode == 1
    assert done.stderr.startswith(sys.executable)


# -- the end ------------------------------------------------------------------


@pytest.mark.parametrize(
    "end",
    [
        "sys.exit(7)",
        "sys.exit('why')",
        "raise KeyboardInterrupt",
        "os.kill(os.getpid(), signal.SIGTERM)",
        "def f(): 1 / 0\nf()",
        "x = = 3",
        "try: 1 / 0\nexcept Exception as e: raise OSError('b') from e",
        "import atexit; atexit.register(print, 'at exit')\n1 / 0",
        "sys.excepthook = lambda *a: print(a[1])\n1 / 0",
        "child = os.fork()\nif not child: 1 / 0\n"
        "print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))",
    ],
)
def test_it_ends_as_without(both, end):
    both.write("end.py", f"import os, signal, sys\n{end}\n")
    both("end.py")


def test_an_error_in_a_module_is_shown_as_without(both):
    both.write("fails.py", "def f():\n    1 / 0\nf()\n")
    assert both("-m", "fails").returncode == 1


# -- the loop -----------------------------------------------------------------

ALL_WAYS = """
import asyncio

async def kind():
    return type(asyncio.get_running_loop()).__module__.partition(".")[0]

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


OTHER = """
import asyncio, os, sys

async def main(): pass

def other():
    with asyncio.Runner(loop_factory=asyncio.SelectorEventLoop) as runner:
        runner.run(main())
"""


AT_EXIT = """
import atexit
loop = asyncio.SelectorEventLoop()
atexit.register(loop.run_until_complete, main())
sys.exit(3)
"""


@pytest.mark.parametrize(
    ("words", "place"),
    [
        (["other.py"], "{}/other.py:8"),
        (["-m", "other"], "{}/other.py:8"),
        (["-c", OTHER + "other()\nsys.exit(3)"], "<string>:8"),
        (["app.pyz"], "{}/app.pyz/__main__.py:8"),
        # The program's line, or that of a package alone.
        (["uses.py"], "{}/uses.py:4"),
        (["-m", "site-packages"], "{}/site-packages/__main__.py:8"),
        (["-c", OTHER + AT_EXIT], ""),  # the interpreter calls the loop itself
    ],
)
def test_a_run_on_another_loop_is_reported(fastloop_command, words, place):
    source = OTHER + "other()\nsys.exit(3)\n"
    fastloop_command.write("other.py", source)
    package = fastloop_command.folder / "site-packages"
    package.mkdir()
    for name in ("__main__.py", "library.py"):
        text = source if name == "__main__.py" else OTHER
        (package / name).write_text(text)
    fastloop_command.write(
        "uses.py",
        "import sys\nsys.path.append('site-packages')\n"
        "import library\nlibrary.other()\nsys.exit(3)\n",
    )
    archive(fastloop_command.folder / "app.pyz", __main__=source)
    done = fastloop_command("run", *words, status=3)
    told = (
        "fastloop: the program did not run on fastloop but on "
        "asyncio.unix_events._UnixSelectorEventLoop"
    )
    if place:
        told += f", which {place.format(fastloop_command.folder)} started"
    assert done.stderr == wrapped(told) + "\n"


def test_a_child_process_does_not_repeat_what_its_parent_tells(
    fastloop_command,
):
    fork = "other()\nif os.fork() == 0: sys.exit()\nos.wait()"
    done = fastloop_command("run", "-c", OTHER + fork)
    assert done.stderr.count(" did not run on ") == 1


def test_a_spawned_process_names_the_package_that_ran_its_loop(
    fastloop_command,
):
    (fastloop_command.folder / "site-packages").mkdir()
    fastloop_command.write("site-packages/library.py", OTHER)
    spawn = (
        "import multiprocessing, sys\nsys.path.append('site-packages')\n"
        "import library\ncontext = multiprocessing.get_context('spawn')\n"
        "child = context.Process(target=library.other)\n"
        "child.start()\nchild.join()"
    )
    done = fastloop_command("run", "-c", spawn)
    assert "site-packages/library.py:8" in done.stderr


@pytest.mark.parametrize(
    "end",
    [
        "",
        "asyncio.run(main())",
        "other()\nasyncio.run(main())",
        "import fastloop; fastloop.run(main()); other()",
        "asyncio.SelectorEventLoop().close()",
        "other()\nsys.stderr.close()",
        "other()\nsys.stderr = None",
    ],
)
def test_other_runs_have_no_report(fastloop_command, end):
    assert fastloop_command("run", "-c", OTHER + end).stderr == ""


@pytest.mark.parametrize("end", ["", "1 / 0"])
def test_python_stays_interactive_as_without(both, end):
    both.write("look.py", f"import sys\n{end}\n")
    both("look.py", flags=("-i",), stdin="sys.argv\n")


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
    process = fastloop_command.start("run", "wait.py")
    assert process.stdout.readline() == "ready\n"
    status, out, err = interrupt(process)
    assert (status, out) == (-signal.SIGINT, "cleaned\n")
    assert "KeyboardInterrupt" in err


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (["bnech"], "there is no command 'bnech'; --help lists the commands."),
        (["run", "nope.py"], "there is no program nope.py that can be read"),
        (
            ["run", "nope", "a"],
            "there is no program nope that can be read; a module is `-m nope`",
        ),
        (["run", "-m"], "run -m needs one word more"),
        (
            ["run", "-u", "prog.py"],
            "run knows no option -u; options of Python come first, as in "
            "`python -X dev -m fastloop run`",
        ),
        (["run"], "run needs a program: prog.py, -m module, -c code"),
    ],
    ids=" ".join,
)
def test_a_refusal_is_one_sentence(capsys, words, sentence):
    assert cli.main(words) == 2
    assert one_sentence(capsys.readouterr().err) == sentence


#: Of the standard library, which commands import before a program runs.
SHADOWED = ("argparse", "json", "logging", "queue", "selectors", "ssl")


@pytest.mark.parametrize("command", ["run", "info"])
def test_a_file_of_the_current_folder_replaces_no_module(
    fastloop_command, command
):
    """A script's own folder comes first, as without fastloop."""
    folder = fastloop_command.folder / "sub"
    folder.mkdir()
    (folder / "prog.py").write_text("import asyncio, json; print(json.dumps)")
    for name in SHADOWED:
        fastloop_command.write(f"{name}.py", "raise SystemExit(99)")
    words = [] if command == "info" else [os.path.join("sub", "prog.py")]
    done = fastloop_command(command, *words)
    assert command != "run" or "function dumps" in done.stdout


def test_a_file_beside_the_script_replaces_a_module(fastloop_command):
    """As under the interpreter itself."""
    fastloop_command.write("colorsys.py", "print('own')")
    fastloop_command.write("prog.py", "import colorsys")
    assert fastloop_command("run", "prog.py").stdout == "own\n"


def test_a_module_of_the_current_folder_is_found(fastloop_command):
    """By the installed command, too, whose path does not have it."""
    fastloop_command.write("mine.py", "print('mine')")
    code = (
        "import sys; sys.path[0] = '/nowhere'; "
        "sys.argv = ['fastloop', 'run', '-m', 'mine']; "
        "from fastloop.cli import command; command()"
    )
    done = fastloop_command.python("-c", code)
    assert (done.returncode, done.stdout) == (0, "mine\n"), done.stderr
