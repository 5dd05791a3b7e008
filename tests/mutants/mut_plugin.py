"""Loaded into pytest: fastloop's tests alone, and the edges of each.

On a build that counts edges, FL_EDGES_OUT names a file for a line of JSON of
each test, with the edges it reached; child processes leave theirs in the
folder FL_EDGES.
"""

from __future__ import annotations

import contextlib
import ctypes
import functools
import json
import os
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import pytest


class Edges:
    """The counters of this process, and of those that have ended."""

    def __init__(self) -> None:
        from fastloop import _core

        self._library = ctypes.CDLL(_core.__file__)
        self._library.fl_edges_number.restype = ctypes.c_size_t
        self.number = self._library.fl_edges_number()
        self._buffer = (ctypes.c_uint8 * self.number)()

    def places(self) -> list[int]:
        """Return the offset of each edge in the extension."""
        found = (ctypes.c_size_t * self.number)()
        self._library.fl_edges_places(found)
        return list(found)

    def counters(self) -> bytes:
        """Return the counters of this process, and set them to 0."""
        self._library.fl_edges_take(self._buffer)
        return bytes(self._buffer)

    def take(self) -> list[int]:
        """Return the edges that were reached since the last time."""
        own = reached(self.counters())
        ended = left_in(Path(os.environ["FL_EDGES"]), self.number)
        return sorted(own | ended)


def reached(counters: bytes) -> set[int]:
    """Return the numbers of the counters that are not 0."""
    return {edge for edge, count in enumerate(counters) if count}


def left_in(folder: Path, number: int) -> set[int]:
    """Return the edges of processes that have ended, and forget them."""
    found: set[int] = set()
    for path in folder.iterdir():
        with contextlib.suppress(FileNotFoundError):
            counters = path.read_bytes()
            path.unlink()
            if len(counters) == number:  # else the process is still writing
                found |= reached(counters)
    return found


edges = functools.cache(Edges)


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


def pytest_collection_finish() -> None:
    """Forget the edges that imports reach."""
    if "FL_EDGES_OUT" in os.environ:
        edges().take()


def pytest_runtest_logfinish(nodeid: str) -> None:
    """Write the edges that a test reached."""
    if path := os.environ.get("FL_EDGES_OUT"):
        with open(path, "a") as out:
            print(json.dumps([nodeid, edges().take()]), file=out)
