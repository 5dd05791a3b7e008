"""A pytest plugin that runs the tests on a system at its worst.

    python -m pytest -p tests.worst --worst one-byte tests/interop

`one-byte`: each read and each write moves one byte, or a thousandth of what
was asked for.  `would-block`: every second one fails with EAGAIN.  `coarse`:
the coarse clock ticks every 10 ms.  `collect`: the GC runs at almost every
allocation of an object.
"""

from __future__ import annotations

import ctypes
import errno
import gc
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

sys.path.append(str(Path(__file__).with_name("fault")))

MODES = ("one-byte", "would-block", "coarse", "collect")
CUTS = {"one-byte": (3, 1, 0, 0), "would-block": (3, 0, 2, errno.EAGAIN)}


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--worst", choices=MODES, help="make the system bad")


def pytest_configure(config: pytest.Config) -> None:
    if mode := config.getoption("--worst"):
        config.pluginmanager.register(Worst(mode), "fastloop-worst")


class Worst:
    """Has each test run while the system is bad."""

    def __init__(self, mode: str) -> None:
        import fault_shim

        self.mode = mode
        self.shim: ctypes.CDLL | None = None
        if mode != "collect":
            with tempfile.TemporaryDirectory() as folder:
                path = fault_shim.build(Path(folder))
                self.shim = fault_shim.load(path)

    def make(self, bad: bool) -> None:
        """Make the system bad, or good again."""
        if self.mode == "collect":
            gc.set_threshold(*((1,) if bad else (700, 10, 10)))
        elif self.mode == "coarse":
            self.shim.fault_coarse(10 if bad else 0)
        else:
            self.shim.fault_cut(*(CUTS[self.mode] if bad else (0, 0, 0, 0)))

    @pytest.hookimpl(wrapper=True)
    def pytest_runtest_call(self) -> Iterator[None]:
        self.make(bad=True)
        try:
            return (yield)
        finally:
            self.make(bad=False)
