"""Registrations of descriptors (src/core/registration.c), without a loop.

What they are made of is plain C, so it is compiled here by itself.
"""

from __future__ import annotations

import ctypes
import shutil
import subprocess
import sysconfig
from pathlib import Path

import pytest
from patience import PATIENCE

# Nothing of the extension runs here; ctypes keeps what it is shown.
pytestmark = pytest.mark.no_refcount

SOURCE = Path(__file__).resolve().parents[2] / "src"
PARTS = (
    "core/registration",
    "core/fd_set",
    "base/forks",
)


@pytest.fixture(scope="module")
def library(tmp_path_factory: pytest.TempPathFactory) -> ctypes.CDLL:
    compiler = shutil.which("cc")
    assert compiler, "what built fastloop compiles this too"
    built = tmp_path_factory.mktemp("registrations") / "registrations.so"
    headers = sysconfig.get_path("include")
    subprocess.run(
        [
            compiler,
            *("-std=c11", "-D_GNU_SOURCE", "-O1", "-shared", "-fPIC"),
            f"-I{SOURCE}",
            f"-I{headers}",
            str(Path(__file__).with_name("registrations.c")),
            *(str(SOURCE / f"{part}.c") for part in PARTS),
            *("-o", str(built), "-luv"),
        ],
        check=True,
        timeout=PATIENCE,
    )
    return ctypes.CDLL(str(built))


@pytest.mark.parametrize("before", range(12))
def test_generations_begin_again_after_two_to_the_32(library, before):
    """After four billion registrations none is taken for another."""
    first = ctypes.c_uint32(2**32 - before)
    line = library.use_from(first, 40)
    assert line == 0, f"registrations.c, line {line}"
