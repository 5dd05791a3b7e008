"""Each file compiles alone under clang, without a warning, also for a Mac.

The builds themselves (FASTLOOP_WERROR=1) are gcc's.
"""

import os
import subprocess
import sys
import sysconfig
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from .conftest import SRC, TOP, c_files, short

WARNINGS = [
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
]
FLAGS = [
    *WARNINGS,
    "-isystem",
    sysconfig.get_path("include"),
    "-O0",
    "-UNDEBUG",
    "-DFASTLOOP_DEBUG=1",
]

#: What Python's headers ask of these systems, to compile and not to run.
PYCONFIG = """
#define SIZEOF_SHORT 2
#define SIZEOF_INT 4
#define SIZEOF_LONG 8
#define SIZEOF_LONG_LONG 8
#define SIZEOF_VOID_P 8
#define SIZEOF_SIZE_T 8
#define SIZEOF_TIME_T 8
#define SIZEOF_WCHAR_T 4
#define HAVE_UNISTD_H 1
#define HAVE_PTHREAD_H 1
#define HAVE_WCHAR_H 1
#define PTHREAD_KEY_T_IS_COMPATIBLE_WITH_INT 1
"""


def complaints(tool, command, inputs):
    """What the compiler says of each (name, arguments, standard input)."""

    def one(item):
        name, arguments, text = item
        done = tool([*command, *arguments], text)
        return f"{name}:\n{done.stderr}" if done.returncode else ""

    with ThreadPoolExecutor(os.cpu_count()) as pool:
        return [text for text in pool.map(one, inputs) if text]


def libuv_flags(flag="--cflags"):
    done = subprocess.run(
        ["pkg-config", flag, "libuv"], capture_output=True, text=True
    )
    return done.stdout.split()


def includes(kind):
    """Where Python.h is; built by .ci/pythons where there is none yet."""
    if kind == "ours":
        return sysconfig.get_path("include")
    program = "import sysconfig; print(sysconfig.get_path('include'))"
    words = [TOP / ".ci" / "pythons", "run", "3.14t"]
    words += ["sh", "-c", 'exec "$PYTHON" -c "$0"', program]
    done = subprocess.run(words, capture_output=True, text=True, check=True)
    return done.stdout.splitlines()[-1]


@pytest.mark.parametrize("kind", ["ours", "free-threaded"])
def test_file_compiles_alone(tool, kind):
    units = [
        (short(path), ["-c", str(path), "-o", os.devnull], "")
        for path in c_files(".c")
    ]
    headers = [
        (
            short(path),
            ["-Wno-unused-function", "-fsyntax-only", "-x", "c", "-"],
            f'#include "{path.relative_to(SRC)}"\nint fl_lint_only;\n',
        )
        for path in c_files(".h")
    ]
    command = ["clang", "-isystem", includes(kind), *FLAGS, *libuv_flags()]
    bad = complaints(tool, command, units + headers)
    assert not bad, "\n".join(bad)[:8000]


@pytest.mark.parametrize(
    "target", ["aarch64-macos", "x86_64-macos", "x86_64-freebsd"]
)
def test_file_compiles_for_systems_without_epoll(tool, tmp_path, target):
    """A name of ours may be one that such a system declares."""
    (folder,) = libuv_flags("--variable=includedir")
    headers = Path(sysconfig.get_path("include"))
    for path in (*headers.iterdir(), *Path(folder).glob("uv*")):
        (tmp_path / path.name).symlink_to(path)
    (tmp_path / "pyconfig.h").unlink()
    (tmp_path / "pyconfig.h").write_text(PYCONFIG)
    command = [sys.executable, "-m", "ziglang", "cc", *WARNINGS]
    command += ["-target", target, "-isystem", str(tmp_path)]
    units = [
        (short(path), ["-c", str(path), "-o", f"{tmp_path}/{n}.o"], "")
        for n, path in enumerate(c_files(".c"))
    ]
    bad = complaints(tool, command, units)
    assert not bad, "\n".join(bad)[:8000]
