"""Loaded into pytest: fastloop's tests alone, and a file that says how far.

MUTANT_PROGRESS names that file.  Each test writes a line when it begins, and
one when it has failed, so that the end of a process that hangs or crashes is
known to be that test's.
"""

from __future__ import annotations

import os
import time

import pytest


def note(word: str, text: str) -> None:
    """Add a line."""
    with open(os.environ["MUTANT_PROGRESS"], "a") as file:
        file.write(f"{time.monotonic():.3f}\t{word}\t{text}\n")


def pytest_collection_modifyitems(
    config: pytest.Config, items: list[pytest.Item]
) -> None:
    """Leave out what runs on asyncio's loop, which no mutant is in."""
    left, kept = [], []
    for item in items:
        params = getattr(getattr(item, "callspec", None), "params", {})
        (left if params.get("loop_kind") == "asyncio" else kept).append(item)
    config.hook.pytest_deselected(items=left)
    items[:] = kept


def pytest_runtest_logstart(nodeid: str) -> None:
    """Say that a test begins."""
    note("begin", nodeid)


def pytest_runtest_logreport(report: pytest.TestReport) -> None:
    """Say that a test has failed."""
    if report.failed:
        note("failed", report.nodeid)


def pytest_sessionfinish() -> None:
    """Say that the tests are over: what hangs now is the interpreter's end."""
    note("begin", "the end")
