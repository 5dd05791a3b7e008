"""How a program makes its calls fail, by the shim that a variable names."""

from __future__ import annotations

import os
from typing import Any

import fault_shim

VARIABLE = "FASTLOOP_FAULT_SHIM"

SHIM: Any = None
if VARIABLE in os.environ:
    SHIM = fault_shim.load(os.environ[VARIABLE])


def arm(name, code, skip=0, count=1):
    """Let calls skip .. skip+count-1 of *name* fail from now on."""
    SHIM.fault_arm(name.encode(), skip, count, code)


def hits():
    return SHIM.fault_hits()


def check(exc, code, reports):
    """The error is the call's, and what was reported is that error."""
    assert isinstance(exc, OSError) and exc.errno == code, exc
    assert all(report["exception"] is exc for report in reports)
