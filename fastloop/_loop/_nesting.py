"""Runs of a loop inside its own callbacks, which nest_asyncio applies.

asyncio forbids them.  Notebooks need them, and synchronous functions that call
asynchronous ones.
"""

from __future__ import annotations

import asyncio
import contextlib
import sys
from _thread import get_ident

from ..loop import Loop
from . import _private

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator
    from typing import Any

_run_forever = Loop.run_forever
_run_until_complete = Loop.run_until_complete
_stop = Loop.stop

#: Each loop with nested runs: whether the future of its outermost is done.
_outermost_is_done: dict[Any, bool] = {}


def allow() -> None:
    """Allow nested runs, in all loops of fastloop."""
    Loop.run_forever = run_forever  # type: ignore[method-assign]
    Loop.run_until_complete = run_until_complete
    Loop.stop = stop  # type: ignore[method-assign]


@contextlib.contextmanager
def _without_current_task(loop: Any, running: Any) -> Iterator[None]:
    """Set the running loop; no task is current, as between two steps."""
    outer = _private.running_loop()
    _private.set_running_loop(loop)  # whose tasks are swapped
    current = _private.swap_current_tasks(loop)
    _private.set_running_loop(running)
    try:
        yield
    finally:
        _private.set_running_loop(loop)
        _private.swap_current_tasks(loop, *current)
        _private.set_running_loop(outer)


def _nest(loop: Any, task: Any = None) -> None:
    """Run until a task is done, if there is one, or until stop() is called."""

    def run() -> None:
        while task is None or not task.done():
            loop._run_once()
            if loop._stopping:
                return
        # nest_asyncio2 runs the task's callbacks, nest_asyncio does not.
        if "_nest_asyncio2" in vars(asyncio) and loop._ready:
            loop._run_once()

    is_outermost = loop not in _outermost_is_done
    _outermost_is_done.setdefault(loop, False)
    # A stop() before is for the run outside.
    stopping, loop._stopping = loop._stopping, False
    try:
        with _without_current_task(loop, loop):
            loop._nest(run)
        if task is None:
            loop._stopping = False
    finally:
        loop._stopping |= stopping | (
            is_outermost and _outermost_is_done.pop(loop, False)
        )


def _is_nested(loop: Any) -> bool:
    loop._check_closed()
    if loop._thread_id == get_ident():
        return True
    if loop.is_running():
        raise RuntimeError("This event loop is already running")
    _outermost_is_done.pop(loop, None)  # left there by a Ctrl-C
    return False


def run_until_complete(self: Any, future: Any) -> Any:
    """Run until a future is done, also inside a callback of this loop."""
    if not _is_nested(self):
        with _without_current_task(self, None):
            return _run_until_complete(self, future)
    task = asyncio.ensure_future(future, loop=self)
    if task is not future:
        task._log_destroy_pending = False
    _nest(self, task)
    if not task.done():
        raise RuntimeError("Event loop stopped before Future completed.")
    return task.result()


def run_forever(self: Any) -> None:
    """Run until stop() is called, also inside a callback of this loop."""
    if _is_nested(self):
        _nest(self)
        return
    with _without_current_task(self, None):
        _run_forever(self)


def stop(self: Any) -> None:
    """Stop the innermost run.

    The callback of the outermost run's future stops that one, later.
    """
    if self in _outermost_is_done and _private.is_done_callback(
        sys._getframe(1).f_code
    ):
        _outermost_is_done[self] = True
    else:
        _stop(self)
