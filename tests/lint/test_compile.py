"""Each file compiles alone under clang, without a warning.

The builds themselves (FASTLOOP_WERROR=1) are gcc's.
"""

import os
import subprocess
import sysconfig
from concurrent.futures import ThreadPoolExecutor

from .conftest import SRC, c_files, short

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
    command = ["clang", *FLAGS, *libuv_flags()]
    bad = complaints(tool, command, units + headers)
    assert not bad, "\n".join(bad)[:8000]
