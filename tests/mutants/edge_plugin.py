"""Loaded into pytest: a line of JSON for each test, with the edges it reached.

FL_EDGES names the folder in which child processes leave theirs, FL_EDGES_OUT
the file that gets the lines.  `mut_plugin` chooses the tests.
"""

from __future__ import annotations

import contextlib
import ctypes
import functools
import json
import os
from pathlib import Path


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

    def take(self) -> list[int]:
        """Return the edges that were reached since the last time."""
        self._library.fl_edges_take(self._buffer)
        folder = Path(os.environ["FL_EDGES"])
        own = reached(bytes(self._buffer))
        return sorted(own | left_in(folder, self.number))


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


def write(name: str) -> None:
    """Add the line of a test."""
    with open(os.environ["FL_EDGES_OUT"], "a") as out:
        print(json.dumps([name, edges().take()]), file=out)


def pytest_collection_finish() -> None:
    """Forget what imports reach."""
    edges().take()


def pytest_runtest_logfinish(nodeid: str) -> None:
    """Write what a test reached."""
    write(nodeid)
