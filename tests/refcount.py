"""A pytest plugin that finds reference leaks on a debug interpreter.

    python3.14d -m pytest -p tests.refcount --refcount tests/behaviour

Each test, with its fixtures, is run again and again; the interpreter's total
of references (sys.gettotalrefcount) is read between the runs.  Caches fill in
the first runs, and noise goes up and down; a leak goes up each time.  A test
that grows in every run is given more runs before it is called leaking.
"""

from __future__ import annotations

import array
import collections
import gc
import statistics
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from _pytest.runner import runtestprotocol

WARM_UP = 2
RUNS = 2
MORE_RUNS = 8
LAST_RUNS = 24
MANY = 8

if sys.version_info >= (3, 13):
    clear_type_cache = sys._clear_internal_caches
else:
    clear_type_cache = sys._clear_type_cache


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption(
        "--refcount",
        action="store_true",
        help="run each test again and fail it if references grow",
    )


def pytest_configure(config: pytest.Config) -> None:
    if config.getoption("--refcount"):
        if not hasattr(sys, "gettotalrefcount"):
            raise pytest.UsageError(
                "--refcount needs a debug build of CPython "
                "(sys.gettotalrefcount)"
            )
        # pytest-rerunfailures does not see a test that is run from here.
        again = config.getoption("--reruns", None)
        looks = config.getoption("--max-suite-reruns") if again else 0
        repeater = Repeater(looks)
        config.pluginmanager.register(repeater, "fastloop-refcount")


@pytest.fixture
def tmp_path() -> Iterator[Path]:
    """Stands in for pytest's own, which grows by 24 references a test."""
    with tempfile.TemporaryDirectory() as name:
        yield Path(name)


def settled_total(without_cache: bool) -> int:
    for _ in range(3):
        gc.collect()
    # Each of its 4096 places keeps the name that was looked up last, and a
    # name that is made anew each time takes another place each time.  An empty
    # one makes the next run twice as slow: only for what seems to leak.
    if without_cache:
        clear_type_cache()
    return sys.gettotalrefcount()


def is_leak(grown: list[int]) -> bool:
    """Whether growth in each run is a leak and no cache that still fills.

    A leak is the same in most runs, or many references in every one; what a
    debug interpreter itself keeps is a few, now more and now fewer.
    """
    _, most = collections.Counter(grown).most_common(1)[0]
    return min(grown) > 0 and (
        most * 4 >= len(grown) * 3 or min(grown) >= MANY
    )


def deserves_second_look(reports: list[pytest.TestReport]) -> bool:
    """Whether the test failed, and not by taking too long."""
    failed = [report for report in reports if report.failed]
    return bool(failed) and not any(
        "pytest-timeout" in report.longreprtext for report in failed
    )


class Repeater:
    """Repeats what passed, and turns growth into a failure."""

    def __init__(self, second_looks: int) -> None:
        self.second_looks = second_looks
        self.left_out: dict[str, pytest.Item] = {}

    def pytest_deselected(self, items: list[pytest.Item]) -> None:
        self.left_out.update((item.nodeid, item) for item in items)

    @pytest.hookimpl(tryfirst=True)
    def pytest_runtest_protocol(
        self, item: pytest.Item, nextitem: pytest.Item | None
    ) -> bool:
        hooks, where = item.ihook, (item.nodeid, item.location)
        hooks.pytest_runtest_logstart(nodeid=where[0], location=where[1])
        reports = runtestprotocol(item, nextitem=nextitem, log=False)
        if self.second_looks and deserves_second_look(reports):
            self.second_looks -= 1
            for report in reports:
                report.outcome = "rerun" if report.failed else report.outcome
                report.rerun = 0
                hooks.pytest_runtest_logreport(report=report)
            item._initrequest()
            reports = runtestprotocol(item, nextitem=nextitem, log=False)
            for report in reports:
                report.rerun = 1
        if all(report.passed for report in reports):
            self.judge(item, nextitem, reports)
        for report in reports:
            hooks.pytest_runtest_logreport(report=report)
        hooks.pytest_runtest_logfinish(nodeid=where[0], location=where[1])
        return True

    def judge(
        self,
        item: pytest.Item,
        nextitem: pytest.Item | None,
        reports: list[pytest.TestReport],
    ) -> None:
        if item.get_closest_marker("no_refcount"):
            return
        grown = self.deltas(item, nextitem, WARM_UP, RUNS)
        if min(grown) > 0:
            grown = self.deltas(item, nextitem, 1, MORE_RUNS)
        if min(grown) > 0 and max(grown) > min(grown):
            # A leak is the same each time; what wavers may still settle.
            grown = self.deltas(item, nextitem, 1, LAST_RUNS)
        if is_leak(grown) and not self.asyncio_grows(item, grown):
            report = next(r for r in reports if r.when == "call")
            report.outcome = "failed"
            report.longrepr = f"references grew in each run: {grown}"

    def asyncio_grows(self, item: pytest.Item, grown: list[int]) -> bool:
        """Whether the same test grows as much on asyncio's own loop."""
        twin = self.left_out.get(item.nodeid.replace("fastloop", "asyncio"))
        if twin is None or twin is item:
            return False
        theirs = self.deltas(twin, None, 1, MORE_RUNS)
        return max(theirs) >= statistics.median(grown)

    def deltas(
        self,
        item: pytest.Item,
        nextitem: pytest.Item | None,
        skip: int,
        runs: int,
    ) -> list[int]:
        # Not a list: that would hold references of its own.
        totals = array.array("q", [0] * (runs + 1))
        for number in range(-skip, runs + 1):
            # The fixtures of the run before are gone: make them anew.
            item._initrequest()
            runtestprotocol(item, nextitem=nextitem, log=False)
            # What was captured would be kept with the item.
            item._report_sections.clear()
            if number >= 0:
                totals[number] = settled_total(runs > RUNS)
        return [b - a for a, b in zip(totals, totals[1:], strict=False)]
