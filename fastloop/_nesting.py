"""Runs of a loop inside its own callbacks, which nest_asyncio applies.

asyncio forbids them.  Notebooks need them, and synchronous functions that call
asynchronous ones.
"""

from __future__ import annotations

import asyncio
import contextlib
import sys
from _thread import get_ident

from . import _private
from .loop import Loop

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator
    from typing import Any

_run_forever = Loop.run_forever
_run_until_complete = Loop.run_until_complete
_stop = Loop.stop

#: The loops that have nested runs; True: their outermost run is to end.
_ended: dict[Any, bool] = {}


def allow() -> None:
    """Let callbacks run their loop, or another one: all loops of fastloop."""
    Loop.run_forever = run_forever  # type: ignore[method-assign]
    Loop.run_until_complete = run_until_complete
    Loop.stop = stop  # type: ignore[method-assign]


@contextlib.contextmanager
def _between_steps(loop: Any, running: Any) -> Iterator[None]:
    """Set the running loop, while no task is current."""
    outer = _private.running_loop()
    _private.set_running_loop(loop)
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
        if loop._ready:  # the task's callbacks, as asyncio's run
            loop._run_once()

    is_outermost = loop not in _ended
    _ended.setdefault(loop, False)
    # A stop() before is for the run outside.
    stopping, loop._stopping = loop._stopping, False
    try:
        with _between_steps(loop, loop):
            loop._nest(run)
        if task is None:
            loop._stopping = False
    finally:
        loop._stopping |= stopping | (is_outermost and _ended.pop(loop))


def run_until_complete(self: Any, future: Any) -> Any:
    """Run until a future is done, also inside a callback of this loop."""
    self._check_closed()
    if self._thread_id != get_ident():
        with _between_steps(self, None):
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
    self._check_closed()
    if self._thread_id == get_ident():
        _nest(self)
        return
    with _between_steps(self, None):
        _run_forever(self)


def stop(self: Any) -> None:
    """Stop the innermost run; or, as its future is done, the outermost."""
    if self in _ended and _private.ends_run(sys._getframe(1).f_code):
        _ended[self] = True
    else:
        _stop(self)
