"""The search for reference leaks must be able to find one.

Runs in each environment, and does its work in that of the debug interpreter.
"""

import subprocess
import sys
from pathlib import Path

import pytest

TOP = Path(__file__).resolve().parents[2]

LEAKY = """
import ctypes
kept = []
def test_leaks():
    kept.append(object())
def test_is_clean():
    assert object()
def test_warms_up():
    if len(kept) < 3:
        kept.append(object())
"""


@pytest.mark.no_refcount
@pytest.mark.skipif(
    not hasattr(sys, "gettotalrefcount"),
    reason="needs a debug build of CPython",
)
def test_reference_counts_are_checked(tmp_path):
    (tmp_path / "test_sample.py").write_text(LEAKY)
    words = "-m pytest -p tests.refcount --refcount -q".split()
    words += ["-c", TOP / "pyproject.toml", "--rootdir", tmp_path, tmp_path]
    done = subprocess.run(
        [sys.executable, *words], cwd=TOP, capture_output=True, text=True
    )
    assert "1 failed, 2 passed" in done.stdout, done.stdout
    assert "references grew" in done.stdout
    assert "test_sample.py::test_leaks" in done.stdout
