"""Says at the end of a program that it ran on other loops alone, and where.

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
import sysconfig

from fastloop import _private
from fastloop.loop import Loop

from .commands import HOME
from .commands import tell as write

TYPE_CHECKING = False
if TYPE_CHECKING:
    from types import FrameType

__all__ = ["tell_of_other_loops"]

#: Folders of the standard library.
_STANDARD = tuple(
    os.path.join(sysconfig.get_path(name), "")
    for name in ("stdlib", "platstdlib")
)
_OWN = os.path.join(HOME, "fastloop", "")


def _is_child() -> bool:
    """Whether this is a process that multiprocessing has started."""
    found = sys.modules.get("multiprocessing.process")
    return found is not None and found.parent_process() is not None


def _starter(frame: FrameType | None) -> str:
    """Return the file and line that started a loop: the first of the
    program's, or of a package if there is none of the program's.
    """
    first = ""
    while frame is not None:
        file = frame.f_code.co_filename
        place = f"{file}:{frame.f_lineno}"
        if file.startswith((_OWN, "<frozen ")):
            pass
        elif "-packages/" in file:  # Debian's are dist-packages
            first = first or place
        elif not file.startswith(_STANDARD):
            return place
        frame = frame.f_back
    return first


def tell_of_other_loops() -> None:
    """Have one sentence on stderr when this process ends, if it is due."""
    kinds: dict[type, str] = {}  # of the loops that ran, and who started one

    def ran(loop: asyncio.AbstractEventLoop) -> None:
        if not kinds and _is_child():
            # Such a process may end without the functions of `atexit`.
            sys.modules["multiprocessing.util"].Finalize(
                None, tell, exitpriority=0
            )
        if type(loop) not in kinds:
            kinds[type(loop)] = _starter(sys._getframe())

    def tell() -> None:
        if not kinds or any(issubclass(kind, Loop) for kind in kinds):
            return
        if getattr(sys.stderr, "closed", True):  # or None
            return
        names = " and ".join(
            f"{kind.__module__}.{kind.__name__}"
            + (f", which {place} started" if place else "")
            for kind, place in kinds.items()
        )
        who = f"process {os.getpid()}" if _is_child() else "the program"
        kinds.clear()  # once, if `atexit` calls it too
        write(f"{who} did not run on fastloop but on {names}")

    _private.watch_runs(ran)
    os.register_at_fork(after_in_child=kinds.clear)
    atexit.register(tell)
