"""Kinds of transports over TLS: on asyncio's loop there is one way to do it.

The name of such a kind ends with what fastloop does without; the environment
says so while the loop is made.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest

WITHOUT = {"-no-libssl": "libssl", "-no-native": "native_tls"}
HERE = Path(__file__).parent


def switch_of(item: Any) -> str:
    """Return what a test's kind of transport turns off."""
    kind = getattr(item, "callspec", None) and item.callspec.params.get("kind")
    for ending, name in WITHOUT.items():
        if str(kind).endswith(ending):
            return name
    return ""


def pytest_collection_modifyitems(items: list[Any]) -> None:
    """Take out what would be run twice on asyncio."""
    items[:] = [
        item
        for item in items
        if HERE not in item.path.parents
        or not switch_of(item)
        or item.callspec.params["loop_kind"] != "asyncio"
    ]


@pytest.fixture
def loop_kind(
    request: pytest.FixtureRequest,
    loop_kind: str,
    monkeypatch: pytest.MonkeyPatch,
) -> str:
    """Return which loop runs the test, and say how it shall do TLS."""
    if name := switch_of(request.node):
        names = [os.environ.get("FASTLOOP_DISABLE", ""), name]
        monkeypatch.setenv("FASTLOOP_DISABLE", ",".join(filter(None, names)))
    return loop_kind
