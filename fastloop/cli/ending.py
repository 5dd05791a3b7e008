"""Says at the end of a program that it ran on other loops alone.

A library or the program itself may choose its loop, and then `run` changes
nothing.  A program that used no event loop, or fastloop's for a part, gets no
message, nor does a process that ends without its `atexit` functions.
"""

from __future__ import annotations

import asyncio
import atexit
import os
import sys

from fastloop import _private
from fastloop.loop import Loop

__all__ = ["tell_of_other_loops"]


def tell_of_other_loops(program: str | None) -> None:
    """Have one sentence on stderr when this process ends, if it is due.

    program is what `doctor` can read of the program; None: nothing.
    """
    kinds: dict[type, None] = {}  # of the loops that ran, in order

    def ran(loop: asyncio.AbstractEventLoop) -> None:
        kinds[type(loop)] = None

    def tell() -> None:
        if not kinds or any(issubclass(kind, Loop) for kind in kinds):
            return
        if getattr(sys.stderr, "closed", True):  # or None
            return
        names = " and ".join(f"{k.__module__}.{k.__name__}" for k in kinds)
        hint = "it chose its loop itself"
        if program is not None:
            from shlex import quote  # only now: the program has ended

            hint = f"`python -m fastloop doctor {quote(program)}` may show "
            hint += "where it chooses its loop"
        print(
            f"fastloop: the program ran on {names}, not on fastloop: {hint}",
            file=sys.stderr,
        )

    _private.watch_runs(ran)
    os.register_at_fork(after_in_child=kinds.clear)
    atexit.register(tell)
