"""Processes of multiprocessing may end without the functions of `atexit`."""

from __future__ import annotations

import sys

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable


def is_child() -> bool:
    """Whether this is a process that multiprocessing has started."""
    found = sys.modules.get("multiprocessing.process")
    return found is not None and found.parent_process() is not None


def at_end_of_child(call: Callable[[], None]) -> None:
    """Call a function when this process ends, if it is such a process.

    `atexit` may call the function as well, so it must do its work once.
    """
    if is_child():
        util = sys.modules["multiprocessing.util"]
        util.Finalize(None, call, exitpriority=0)
