"""Says at the end of a program that it ran on other loops alone.

A library or the program itself may choose its loop, and then `run` changes
nothing.  So may a process of multiprocessing, as those of granian do, which
speaks for itself.  A process that used no event loop, or fastloop's for a
part, gets no message, nor does one that ends without its `atexit` functions.
"""

from __future__ import annotations

import asyncio
import atexit
import os
import sys

from fastloop import _private
from fastloop.loop import Loop

from .commands import tell as write

__all__ = ["tell_of_other_loops"]


def _is_child() -> bool:
    """Whether this is a process that multiprocessing has started."""
    found = sys.modules.get("multiprocessing.process")
    return found is not None and found.parent_process() is not None


def tell_of_other_loops(program: str | None) -> None:
    """Have one sentence on stderr when this process ends, if it is due.

    program is what `doctor` can read of the program; None: nothing.
    """
    kinds: dict[type, None] = {}  # of the loops that ran, in order

    def ran(loop: asyncio.AbstractEventLoop) -> None:
        if not kinds and _is_child():
            # Such a process may end without the functions of `atexit`.
            sys.modules["multiprocessing.util"].Finalize(
                None, tell, exitpriority=0
            )
        kinds[type(loop)] = None

    def tell() -> None:
        if not kinds or any(issubclass(kind, Loop) for kind in kinds):
            return
        if getattr(sys.stderr, "closed", True):  # or None
            return
        names = " and ".join(f"{k.__module__}.{k.__name__}" for k in kinds)
        who = f"process {os.getpid()}" if _is_child() else "the program"
        kinds.clear()  # once, if `atexit` calls it too
        hint = "it chose its loop itself"
        if program is not None:
            from shlex import quote  # only now: the program has ended

            hint = f"`python -m fastloop doctor {quote(program)}` may show "
            hint += "where it chooses its loop"
        write(f"{who} ran on {names}, not on fastloop: {hint}")

    _private.watch_runs(ran)
    os.register_at_fork(after_in_child=kinds.clear)
    atexit.register(tell)
