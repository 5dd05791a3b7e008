"""A short soak in every run; soak_uvicorn.py by hand does the long one."""

from __future__ import annotations

import shutil
import sys

import pytest

pytest.importorskip("uvicorn", reason="uvicorn is not installed")
pytest.importorskip("httptools", reason="httptools is not installed")

import soak_uvicorn


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
@pytest.mark.skipif(shutil.which("cc") is None, reason="no C compiler")
def test_uvicorn_survives_a_load(loop_kind):
    seen = soak_uvicorn.soak(20_000, loop_kind)
    assert seen[-1][0] >= 20_000
