"""The fixture that compiles what makes system calls fail."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

import pytest


@pytest.fixture(scope="session")
def shim(tmp_path_factory):
    """Return the path of the compiled shim."""
    compiler = os.environ.get("CC") or shutil.which("cc")
    if not compiler:
        pytest.skip("needs a C compiler")
    path = tmp_path_factory.mktemp("shim") / "shim.so"
    source = Path(__file__).with_name("shim.c")
    command = [*compiler.split(), "-shared", "-fPIC", "-O1", "-Wall"]
    subprocess.run([*command, "-o", path, source, "-ldl"], check=True)
    return path
