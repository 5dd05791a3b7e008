"""The wheels for Windows, where fastloop is asyncio's own loop.

tools/wheels --try runs one on CPythons for Windows, which show what is real.
"""

import os
import shutil
import subprocess
import sys
import zipfile
from importlib.metadata import distributions
from pathlib import Path

import pytest
from isolated_scripts import LIMIT

import fastloop

MISSING = {"pip", "setuptools", "opentelemetry-api"}
MISSING -= {each.name for each in distributions()}
pytestmark = pytest.mark.skipif(bool(MISSING), reason=f"without {MISSING}")

TOP = Path(__file__).parents[2]
SYSTEMS = ["win_amd64", "win_arm64", "win32"]
NAME = f"asyncio_fastloop-{fastloop.__version__}-py3-none-{{}}.whl"
#: anyio's plugin has trio look for DLLs, faker's looks for time zones.
OTHERS = "-p no:anyio -p no:faker"
#: Gives Linux the names of Windows, and its asyncio what it imports there.
WINDOWS = """
import asyncio.unix_events, io, os, signal, socket, subprocess, sys, types

class Any(types.ModuleType):
    def __getattr__(self, name):
        if name.startswith("__"):
            raise AttributeError(name)
        return -1

for name in ("_overlapped", "_winapi", "msvcrt"):
    sys.modules[name] = Any(name)
subprocess.STARTUPINFO = io._WindowsConsoleIO = type("Never", (), {})
del os.fork, os.register_at_fork
# The wheel has none; an editable install would find that of its tree.
sys.modules["fastloop._core"] = None
for name in [n for n in sys.modules if n.partition(".")[0] == "asyncio"]:
    del sys.modules[name]
sys.platform = "win32"
import asyncio

# Its Proactor loop needs the system itself.
class ProactorEventLoop(asyncio.SelectorEventLoop):
    __module__ = "asyncio.windows_events"

asyncio.ProactorEventLoop = ProactorEventLoop
for name, value in vars(asyncio.windows_events).items():
    if name.endswith("WindowsProactorEventLoopPolicy"):
        value._loop_factory = ProactorEventLoop
"""


def run(*words, folder=None, status=0, **env):
    """What a program of this Python's prints."""
    done = subprocess.run(
        [sys.executable, *map(str, words)],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=LIMIT,
        cwd=folder,
        env={**os.environ, "PYTEST_ADDOPTS": OTHERS, **env},
    )
    assert done.returncode == status, done.stdout
    return done.stdout


@pytest.fixture(scope="module")
def wheels(tmp_path_factory):
    """A folder with those that a checkout makes."""
    tree = tmp_path_factory.mktemp("tree")
    ignored = shutil.ignore_patterns("*.so", "__pycache__")
    shutil.copytree(TOP / "fastloop", tree / "fastloop", ignore=ignored)
    for name in ("setup.py", "pyproject.toml", "README.md"):
        shutil.copy(TOP / name, tree)
    for system in SYSTEMS:
        words = ("setup.py", "-q", "bdist_wheel")
        run(*words, folder=tree, FASTLOOP_WINDOWS=system)
    return tree / "dist"


def pip(command, to, folder, wheels, platform, status=0):
    words = f"-m pip {command} --platform {platform} --only-binary :all:"
    words += f" --no-index --find-links {wheels} {to} {folder}"
    return run(*words.split(), "asyncio-fastloop", status=status)


@pytest.mark.parametrize("system", SYSTEMS)
def test_each_windows_takes_its_wheel(wheels, system, tmp_path):
    pip("download", "-d", tmp_path, wheels, system)
    (found,) = tmp_path.iterdir()
    assert found.name == NAME.format(system)
    kinds = {Path(name).suffix for name in zipfile.ZipFile(found).namelist()}
    assert not kinds & {".so", ".pyd", ".dll"}


@pytest.mark.parametrize(
    "system", ["manylinux_2_28_x86_64", "macosx_11_0_arm64"]
)
def test_no_other_system_takes_one(wheels, system, tmp_path):
    told = pip("download", "-d", tmp_path, wheels, system, status=1)
    assert "No matching distribution found for asyncio-fastloop" in told


def test_a_suite_runs_there_on_asyncio(wheels, tmp_path):
    pip("install", "--target", tmp_path / "site", wheels, "win_amd64")
    (tmp_path / "windows.py").write_text(WINDOWS)
    shutil.copy(Path(__file__).with_name("windows_suite.py"), tmp_path)
    words = "-m pytest --fastloop -p windows -p no:looptime_plugin".split()
    path = f"{tmp_path / 'site'}:{tmp_path}"
    told = run(*words, "windows_suite.py", folder=tmp_path, PYTHONPATH=path)
    assert "13 passed, 1 skipped" in told
    assert told.count("fastloop: asyncio's own loop: there is no") == 1
