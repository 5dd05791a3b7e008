"""Registrations of descriptors (src/core/registration.c), without a loop.

What they are made of is plain C, so it is compiled here by itself.
"""

from __future__ import annotations

import ctypes

import pytest

# Nothing of the extension runs here; ctypes keeps what it is shown.
pytestmark = pytest.mark.no_refcount

FILES = (
    "tests/unit/registrations.c",
    "src/core/registration.c",
    "src/core/poller_epoll.c",
    "src/core/poller_uv.c",
    "src/base/forks.c",
    "-luv",
)


@pytest.fixture(scope="module")
def library(compiled) -> ctypes.CDLL:
    return compiled(*FILES)


@pytest.mark.parametrize("before", range(12))
def test_generations_begin_again_after_two_to_the_32(library, before):
    """After four billion registrations none is taken for another."""
    first = ctypes.c_uint32(2**32 - before)
    line = library.use_from(first, 40)
    assert line == 0, f"registrations.c, line {line}"
