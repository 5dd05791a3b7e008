"""Fixtures that run programs in interpreters of their own."""

from __future__ import annotations

import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest
from isolated_scripts import LIMIT, Script


@pytest.fixture
def script(
    request: pytest.FixtureRequest, loop_kind: str, tmp_path: Path
) -> Script:
    """Return the runner of programs for each kind of loop."""
    return Script(loop_kind, tmp_path, request.module)


@pytest.fixture
def fast_script(request: pytest.FixtureRequest, tmp_path: Path) -> Script:
    """Return the runner of programs for fastloop alone."""
    return Script("fastloop", tmp_path, request.module)


@pytest.fixture
def finish() -> Callable[[subprocess.Popen[str]], tuple[int, str, str]]:
    """Return a function that waits for a started program to end."""

    def finish(process: subprocess.Popen[str]) -> tuple[int, str, str]:
        try:
            out, err = process.communicate(timeout=LIMIT)
        except subprocess.TimeoutExpired:
            process.kill()
            out, err = process.communicate()
            pytest.fail(f"the program does not end: {out}{err}")
        return process.returncode, out, err

    return finish
