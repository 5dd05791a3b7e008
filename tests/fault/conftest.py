"""The fixtures of what makes system calls fail."""

from __future__ import annotations

import os
from pathlib import Path

import fault_shim
import pytest


@pytest.fixture(scope="session")
def shim(tmp_path_factory):
    """Return the path of the compiled shim."""
    if not fault_shim.compiler():
        pytest.skip("needs a C compiler")
    return fault_shim.build(tmp_path_factory.mktemp("shim"))


@pytest.fixture
def shim_env():
    """Return the environment of a program that loads the shim."""
    import fastloop

    home = str(Path(fastloop.__file__).resolve().parent.parent)
    path = os.environ.get("PYTHONPATH")
    return {
        **os.environ,
        "PYTHONPATH": home + (os.pathsep + path if path else ""),
    }
