"""A lock that a forked child initializes again (src/base/forks.c)."""

from __future__ import annotations

import ctypes

import pytest

# Nothing of the extension runs here; ctypes keeps what it is shown.
pytestmark = pytest.mark.no_refcount


@pytest.fixture(scope="module")
def library(compiled) -> ctypes.CDLL:
    return compiled("tests/unit/forks.c", "src/base/forks.c")


def test_one_thread_of_a_child_initializes_its_lock(library):
    """The others wait until it has done so."""
    for _ in range(30):
        assert library.use_in_children() == 0


def test_a_lock_is_not_initialized_twice_without_a_fork(library):
    assert library.use_here() == 0
