"""Compiles parts of src/ that are plain C by themselves."""

from __future__ import annotations

import ctypes
import shutil
import subprocess
import sysconfig
from collections.abc import Callable
from pathlib import Path

import pytest
from patience import PATIENCE

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture(scope="session")
def compiled(
    tmp_path_factory: pytest.TempPathFactory,
) -> Callable[..., ctypes.CDLL]:
    """compiled(*files) makes a library of C files of this checkout.

    Words that begin with "-l" are libraries.
    """

    def load(*files: str) -> ctypes.CDLL:
        compiler = shutil.which("cc")
        assert compiler, "what built fastloop compiles this too"
        built = tmp_path_factory.mktemp("library") / "library.so"
        subprocess.run(
            [
                compiler,
                *("-std=c11", "-D_GNU_SOURCE", "-O1", "-shared", "-fPIC"),
                *(f"-I{ROOT / 'src'}", f"-I{sysconfig.get_path('include')}"),
                *(f if f[:2] == "-l" else str(ROOT / f) for f in files),
                *("-o", str(built)),
            ],
            check=True,
            timeout=PATIENCE,
        )
        return ctypes.CDLL(str(built))

    return load
