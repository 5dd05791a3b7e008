"""A system call that fails has the same effects on fastloop and on asyncio."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest
import same_errors
from builds import SANITIZED
from fault_calls import VARIABLE

pytestmark = [
    pytest.mark.skipif(
        sys.platform != "linux", reason="the shim is made for Linux"
    ),
    pytest.mark.skipif(
        SANITIZED, reason="a sanitizer wraps the same functions"
    ),
]


@pytest.mark.parametrize("name", same_errors.ACTIONS)
def test_a_failing_call_has_the_same_effects_as_on_asyncio(
    shim, shim_env, name
):
    done = subprocess.run(
        [sys.executable, "-X", "faulthandler", same_errors.__file__, name],
        env={**shim_env, VARIABLE: str(shim)},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    *found, summary = map(json.loads, done.stdout.splitlines())
    assert summary == {"compared": 2 * len(same_errors.ERRORS)}
    assert found == []
