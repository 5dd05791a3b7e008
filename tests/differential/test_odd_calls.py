"""Public methods with odd arguments: see odd_calls.py.

In processes of their own: such calls leave coroutines and sockets behind.
"""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import odd_calls
import pytest

PROGRAM = Path(odd_calls.__file__)


@pytest.mark.no_refcount
@pytest.mark.parametrize("name", odd_calls.OBJECTS)
def test_odd_arguments_have_the_same_outcome(name: str) -> None:
    done = subprocess.run(
        [sys.executable, str(PROGRAM), name],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout[-5000:] + done.stderr[-2000:]
