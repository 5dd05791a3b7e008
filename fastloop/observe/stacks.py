"""The stack of a loop's thread, as another thread reads it."""

from __future__ import annotations

import linecache
import sys
import traceback

from fastloop.metrics import place

TYPE_CHECKING = False
if TYPE_CHECKING:
    from traceback import FrameSummary
    from types import CodeType

    from fastloop.loop import Loop


_MOST_FRAMES = 40
# traceback imports modules when it first formats a stack.  A thread of ours
# must not, because a child that is forked meanwhile never gets their locks.
traceback.format_list(traceback.extract_stack(limit=1))

#: Why there is no stack without a GIL.  CPython's guide to free threading
#: forbids it, and a program that does it again and again does crash.
UNREADABLE = "CPython may crash when a thread reads the stack of another one"


def stack_of(
    loop: Loop, without: CodeType | None = None
) -> tuple[list[FrameSummary], CodeType | None]:
    """Return where a loop's callback is, outer first, and its outermost code.

    Frames of the code *without* are left out.  Only with a GIL.

    This does not read the lines of the source, which takes time.  While it
    refers to the frames, objects that the callback drops stay alive, and this
    thread would then run their destructors.
    """
    frame = sys._current_frames().get(loop._thread_id or 0)
    found: list[FrameSummary] = []
    outermost = None
    while frame is not None:
        code = frame.f_code
        # A callback may run another loop.
        is_run = code.co_name == "run_forever"
        if is_run and frame.f_locals.get("self") is loop:
            break
        outermost = code
        if code is not without and len(found) < _MOST_FRAMES:
            linecache.lazycache(code.co_filename, frame.f_globals)
            found.append(place(code, frame.f_lineno))
        frame = frame.f_back
    return found[::-1], outermost
