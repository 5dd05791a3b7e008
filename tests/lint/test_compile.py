"""Each file compiles alone under clang, without a warning.

The builds themselves (FASTLOOP_WERROR=1) are gcc's.
"""

import ctypes
import os
import shutil
import subprocess
import sys
import sysconfig
import zipfile
from concurrent.futures import ThreadPoolExecutor

from .conftest import SRC, TOP, c_files, short

FLAGS = [
    "-std=c11",
    "-D_GNU_SOURCE",
    '-DFL_VERSION="lint"',
    "-fvisibility=hidden",
    "-Wall",
    "-Wextra",
    "-Wno-unused-parameter",
    "-Wno-missing-field-initializers",
    "-Werror",
    f"-I{SRC}",
    "-isystem",
    sysconfig.get_path("include"),
    "-O0",
    "-UNDEBUG",
    "-DFASTLOOP_DEBUG=1",
]


def complaints(tool, command, inputs):
    """What the compiler says of each (name, arguments, standard input)."""

    def one(item):
        name, arguments, text = item
        done = tool([*command, *arguments], text)
        return f"{name}:\n{done.stderr}" if done.returncode else ""

    with ThreadPoolExecutor(os.cpu_count()) as pool:
        return [text for text in pool.map(one, inputs) if text]


def libuv_flags():
    done = subprocess.run(
        ["pkg-config", "--cflags", "libuv"], capture_output=True, text=True
    )
    return done.stdout.split()


def test_file_compiles_alone(tool):
    command = ["clang", *FLAGS, *libuv_flags()]
    inputs = [
        (short(path), ["-c", str(path), "-o", os.devnull], "")
        for path in c_files(".c")
    ]
    bad = complaints(tool, command, inputs)
    assert not bad, "\n".join(bad)[:8000]


def test_header_stands_alone(tool):
    command = ["clang", *FLAGS, "-Wno-unused-function", *libuv_flags()]
    inputs = [
        (
            short(path),
            ["-fsyntax-only", "-x", "c", "-"],
            f'#include "{path.relative_to(SRC)}"\nint fl_lint_only;\n',
        )
        for path in c_files(".h")
    ]
    bad = complaints(tool, command, inputs)
    assert not bad, "\n".join(bad)[:8000]


def test_two_wheels_of_one_tree_built_at_once_are_whole(tmp_path):
    """tox -p installs a tree once in each of its environments."""
    tree = tmp_path / "tree"
    built = shutil.ignore_patterns("*.so", "__pycache__")
    for name in ("src", "fastloop"):
        shutil.copytree(TOP / name, tree / name, ignore=built)
    for name in ("setup.py", "pyproject.toml", "README.md"):
        shutil.copy(TOP / name, tree)
    builds = [
        subprocess.Popen(
            [
                *(sys.executable, "-m", "pip", "wheel", "-q", "--no-index"),
                *("--no-build-isolation", "--no-deps", "-w", str(out), "."),
            ],
            cwd=tree,
            env={**os.environ, "FASTLOOP_DEBUG": "1"},
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        for out in (tmp_path / "one", tmp_path / "two")
    ]
    contents = []
    for build, name in zip(builds, ("one", "two"), strict=True):
        output, _ = build.communicate(timeout=280)
        assert build.returncode == 0, output
        (path,) = (tmp_path / name).glob("*.whl")
        with zipfile.ZipFile(path) as wheel:
            contents.append(sorted(wheel.namelist()))
            (core,) = (n for n in wheel.namelist() if n.endswith(".so"))
            ctypes.CDLL(wheel.extract(core, tmp_path / name))
    assert contents[0] == contents[1]
