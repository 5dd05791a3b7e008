"""The fixtures of what makes system calls fail."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import fault_shim
import pytest
from builds import environment


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
    tests = Path(__file__).resolve().parent.parent
    behaviour = tests / "behaviour"
    return environment(tests, behaviour, behaviour / "transport")


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
