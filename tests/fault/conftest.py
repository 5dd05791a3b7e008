"""The fixtures of what makes system calls fail."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import fault_shim
import pytest


@pytest.fixture(scope="session")
def shim(tmp_path_factory):
    """Return the path of the compiled shim."""
    if sys.platform != "linux":
        pytest.skip("the shim is made for Linux")
    if not fault_shim.compiler():
        pytest.skip("needs a C compiler")
    return fault_shim.build(tmp_path_factory.mktemp("shim"))


@pytest.fixture
def shim_env():
    """Return the environment of a program that loads the shim.

    It can import fastloop and what the tests of behaviour share.
    """
    import fastloop

    home = Path(fastloop.__file__).resolve().parent.parent
    tests = Path(__file__).resolve().parent.parent
    behaviour = tests / "behaviour"
    folders = [home, tests, behaviour, behaviour / "transport"]
    path = [*map(str, folders), os.environ.get("PYTHONPATH") or ""]
    return {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, path))}


@pytest.fixture
def run_program(shim, shim_env) -> Callable[..., str]:
    """Return what runs a program with the shim, and returns its output."""

    def run(*words: object, **env: str) -> str:
        done = subprocess.run(
            [sys.executable, "-X", "faulthandler", *map(str, words)],
            env={**shim_env, fault_shim.VARIABLE: str(shim), **env},
            capture_output=True,
            text=True,
        )
        assert done.returncode == 0, done.stdout[-6000:] + done.stderr[-3000:]
        return done.stdout

    return run
