"""What a newcomer meets: a tree that is not built, a build that lacks a part.

Each says in one sentence what is wrong and what to type, and the sentence is
the last line of what it prints.
"""

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from isolated_scripts import LIMIT

import fastloop

TOP = Path(__file__).parents[2]


def fails(*command, cwd=TOP, status=1, **env):
    """The last line that a command which fails has printed, and all of it."""
    done = subprocess.run(
        command,
        cwd=cwd,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=LIMIT,
        env={**os.environ, **env},
    )
    assert done.returncode == status, done.stdout
    return done.stdout.rstrip().rpartition("\n")[2], done.stdout


# -- the tree ----------------------------------------------------------------


@pytest.fixture
def unbuilt(tmp_path):
    """A checkout of the Python part, without the extension."""
    copy = tmp_path / "tree"
    shutil.copytree(
        TOP / "fastloop",
        copy / "fastloop",
        ignore=shutil.ignore_patterns("*.so", "__pycache__"),
    )
    shutil.copy(TOP / "setup.py", copy)
    return copy


# No site-packages: an editable install would find the core of its own tree.
BARE = (sys.executable, "-S", "-c")
USES = [
    "import fastloop; fastloop.run",
    "from fastloop import new_event_loop",
    "import fastloop.loop",
]


@pytest.mark.parametrize("use", USES)
def test_a_tree_that_is_not_built_says_so(unbuilt, use):
    last, _ = fails(*BARE, use, cwd=unbuilt, PYTHONPATH="")
    version = f"Python {sys.version_info.major}.{sys.version_info.minor}"
    start = "ImportError: you are in the source tree of fastloop "
    assert last.startswith(f"{start}{fastloop.__version__}, {unbuilt}, where")
    assert f"not built for this {version}: type `make build` or " in last


def installed(folder, version):
    """The package as pip installs it, with a core that only says where."""
    package = folder / "fastloop"
    shutil.copytree(
        TOP / "fastloop", package, ignore=shutil.ignore_patterns("*.so")
    )
    (package / "_core.py").write_text("raise ImportError(__file__)")
    info = folder / f"asyncio_fastloop-{version}.dist-info" / "METADATA"
    info.parent.mkdir()
    info.write_text(f"Name: asyncio-fastloop\nVersion: {version}\n")
    return package


@pytest.mark.parametrize("use", USES)
def test_a_tree_that_is_not_built_uses_what_pip_installed(
    unbuilt, tmp_path, use
):
    package = installed(tmp_path / "site", fastloop.__version__)
    last, text = fails(*BARE, use, cwd=unbuilt, PYTHONPATH=package.parent)
    assert last == f"ImportError: {package / '_core.py'}"
    files = set(re.findall('File "(.*)"', text))
    assert {each for each in files if str(unbuilt) in each} <= {
        str(unbuilt / "fastloop" / "__init__.py")
    }


def test_a_tree_refuses_another_version_that_pip_installed(unbuilt, tmp_path):
    package = installed(tmp_path / "site", "0.0.9")
    last, _ = fails(*BARE, USES[0], cwd=unbuilt, PYTHONPATH=package.parent)
    assert last.endswith("`pip install .` there (0.0.9 is installed)")


def test_commands_that_need_no_core_work_there(unbuilt):
    code = "import fastloop, fastloop.testing.plugin; fastloop.__version__"
    command = [sys.executable, "-c", code]
    subprocess.run(command, cwd=unbuilt, check=True, timeout=LIMIT)


def test_an_installation_without_the_core_says_so(unbuilt):
    (unbuilt / "setup.py").unlink()
    last, _ = fails(*BARE, USES[0], cwd=unbuilt, PYTHONPATH="")
    assert last.startswith(f"ImportError: fastloop in {unbuilt} has no C core")
    assert f" on {os.uname().machine}: install it again with this" in last


def test_an_error_inside_the_core_is_shown_as_it_is(unbuilt):
    (unbuilt / "fastloop" / "_core.py").write_text("import no_such_module")
    last, _ = fails(*BARE, USES[0], cwd=unbuilt, PYTHONPATH="")
    # From 3.15 on Python adds what it guesses.
    text = "ModuleNotFoundError: No module named 'no_such_module'"
    assert last.startswith(text)


@pytest.mark.parametrize(
    "text",
    [
        "libuv.so.1: cannot open shared object file: No such file",
        "Error loading shared library libuv.so.1: No such file (needed by x)",
        "dlopen(x, 0x0002): Library not loaded: /opt/lib/libuv.1.dylib",
    ],
    ids=["glibc", "musl", "macos"],
)
def test_a_system_without_libuv_is_told_what_to_install(unbuilt, text):
    (unbuilt / "fastloop" / "_core.py").write_text(
        f"raise ImportError({text!r}, path=__file__)"
    )
    last, _ = fails(*BARE, USES[0], cwd=unbuilt, PYTHONPATH="")
    assert last.startswith(f"ImportError: {text}: install the libuv that")
    assert last.count("`apt-get install libuv1`") == 1


@pytest.fixture
def other(unbuilt):
    """PyPI's project of that name has a package of that name."""
    info = unbuilt / "fastloop-0.1.0.dist-info" / "METADATA"
    info.parent.mkdir()
    info.write_text("Metadata-Version: 2.1\nName: fastloop\nVersion: 0.1.0\n")
    return info.parent


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("import no_such_module", "the distribution `fastloop`, which"),
        ("class OtherLoop: pass", "the distribution `fastloop`, which"),
        ("from . import _core", "you are in the source tree of fastloop"),
    ],
)
def test_files_of_the_other_fastloop_are_named(unbuilt, other, text, told):
    (unbuilt / "fastloop" / "runner.py").write_text(text)
    last, _ = fails(*BARE, USES[0], cwd=unbuilt, PYTHONPATH="")
    assert last.startswith(f"ImportError: {told}")
    named = last.endswith("then `pip install asyncio-fastloop`")
    assert named == told.startswith("the distribution")


def test_the_command_line_names_the_other_fastloop(unbuilt, other):
    # Its files replace ours, and are gone when it is uninstalled.
    (unbuilt / "fastloop" / "cli" / "__init__.py").write_text("")
    for told in ("the distribution `fastloop`, which", "files are missing"):
        command = (sys.executable, "-S", "-m", "fastloop", "info")
        _, text = fails(*command, cwd=unbuilt, PYTHONPATH="", status=2)
        assert text.startswith(f"fastloop: {told}")
        shutil.rmtree(other, ignore_errors=True)


# -- the build ---------------------------------------------------------------

LACKS = {
    "compiler": (
        {"CC": "no-such-compiler -O2"},
        "",
        "fastloop needs a C compiler, and `no-such-compiler` was not found",
    ),
    "headers": (
        {},
        "import sysconfig; sysconfig.get_path = lambda name: '/nowhere';",
        "fastloop needs Python's headers, and /nowhere/Python.h does not",
    ),
    "python": (
        {},
        "import setuptools.command.egg_info; "
        "sys.modules['tomllib'] = None; "
        "sys.version_info = (3, 10, 4); "
        "sys.version = '3.10.4 (main)';",
        "fastloop needs CPython 3.11 or newer, and this is cpython 3.10.4.",
    ),
    "free threading": (
        {},
        "import setuptools.command.egg_info, sysconfig; "
        "sysconfig.get_config_vars()['Py_GIL_DISABLED'] = 1; "
        "sys.version_info = (3, 13, 5); "
        "sys.version = '3.13.5 experimental';",
        "fastloop needs free-threaded CPython 3.14 or newer, and this is 3.13",
    ),
    "pkg-config": (
        {"PKG_CONFIG": "no-such-tool"},
        "",
        "fastloop needs libuv 1.42 or newer with its headers, and pkg-config,",
    ),
    "libuv": (
        {"PKG_CONFIG": "false"},
        "",
        "fastloop needs libuv 1.42 or newer with its headers, and pkg-config "
        "found none; install it with `apt-get",
    ),
    "newer libuv": (
        {"PKG_CONFIG": "true"},
        "import subprocess; subprocess.run = lambda *args, **words: "
        "subprocess.CompletedProcess(args, 0, stdout='1.41.1');",
        "fastloop needs libuv 1.42 or newer with its headers, and pkg-config "
        "found 1.41.1; install a wheel",
    ),
    "newer setuptools": (
        {},
        "import setuptools; setuptools.__version__ = '68.1.2';",
        "fastloop needs setuptools 77 or newer to build, and this is 68.1.2: ",
    ),
}


@pytest.mark.parametrize("what", LACKS)
def test_a_build_that_lacks_a_part_says_one_sentence(what):
    pytest.importorskip("setuptools", reason="setuptools is not installed")
    env, patch, expected = LACKS[what]
    # pip asks a wrong Python for the metadata first, and then no more.
    command = "egg_info" if "version_info" in patch else "bdist_wheel"
    code = f"import runpy, sys; {patch} sys.argv = ['setup.py', '{command}']; "
    code += "runpy.run_path('setup.py', run_name='__main__')"
    last, printed = fails(sys.executable, "-c", code, **env)
    assert last.startswith(expected)
    assert printed.count("\n") == 1, "something was printed besides"


@pytest.mark.parametrize(
    ("python", "expected"),
    [
        ("no-such-python", "setup: there is no no-such-python here: name a"),
        ("{old}", "setup: fastloop needs CPython 3.11 or newer, and {old} is"),
    ],
)
def test_make_with_a_python_that_is_too_old(tmp_path, python, expected):
    old = tmp_path / "python3.9"
    old.write_text('#!/bin/sh\n[ "$1" != -V ] || echo Python 3.9.2; exit 1\n')
    old.chmod(0o755)
    last, printed = fails(
        "tools/setup-env",
        "build",
        PYTHON=python.format(old=old),
        VENV=str(tmp_path / "venv"),
    )
    assert last.startswith(expected.format(old=old))
    assert "make build PYTHON=python3.13" in last
    assert printed.count("\n") == 1
    assert not (tmp_path / "venv").exists()
