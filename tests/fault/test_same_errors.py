"""A system call that fails has the same effects on fastloop and on asyncio."""

from __future__ import annotations

import json

import pytest
import same_errors
from builds import SANITIZED

pytestmark = pytest.mark.skipif(
    SANITIZED, reason="a sanitizer wraps the same functions"
)


@pytest.mark.parametrize("name", same_errors.ACTIONS)
def test_a_failing_call_has_the_same_effects_as_on_asyncio(run_program, name):
    out = run_program(same_errors.__file__, name)
    *found, summary = map(json.loads, out.splitlines())
    assert summary == {"compared": 2 * len(same_errors.ERRORS)}
    assert found == []
