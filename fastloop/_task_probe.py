"""Finds which callables asyncio's C task passes to ``loop.call_soon``.

The core runs a task's own steps without making a handle for each.  To
recognise a step it needs one callable of each kind.  The only way to get them
is to run a task on a stub loop.  This happens once, when the extension is
imported.
"""

from __future__ import annotations

import asyncio
import threading

from . import _private

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any


class _StubLoop:
    """The loop methods that a task calls; call_soon() records its calls."""

    def __init__(self) -> None:
        self.calls: list[tuple[Any, tuple[Any, ...]]] = []

    def call_soon(self, callback: Any, *args: Any, context: Any = None) -> Any:
        self.calls.append((callback, args))

    def get_debug(self) -> bool:
        return False

    def is_running(self) -> bool:
        return False

    def call_exception_handler(self, context: dict[str, Any]) -> None:
        pass


def task_callbacks() -> tuple[Any, Any] | None:
    """Return the callables for a task's step and for its wake-up.

    Returns None if asyncio's task is not the C one, or behaves in an unknown
    way: the core then treats steps as any other callback.
    """
    if _private.running_loop() is None:
        return _probe_a_task()
    # This thread is in the middle of a task of the running loop, and a thread
    # can have only one current task: use another thread.
    found: list[tuple[Any, Any] | None] = []
    thread = threading.Thread(target=lambda: found.append(_probe_a_task()))
    thread.start()
    thread.join()
    return found[0] if found else None


def _probe_a_task() -> tuple[Any, Any] | None:
    loop: Any = _StubLoop()
    waiter: asyncio.Future[None] = asyncio.Future(loop=loop)

    async def wait() -> None:
        await waiter

    # Named, so that it uses up none of the numbers of asyncio's task names.
    task = asyncio.Task(wait(), loop=loop, name="fastloop-probe")
    _private.set_running_loop(loop)
    try:
        step = loop.calls.pop()[0]
        step()
        waiter.set_result(None)
        wakeup, args = loop.calls.pop()
        wakeup(*args)
    except IndexError:
        task.cancel()
        return None
    finally:
        _private.set_running_loop(None)
    if type(step).__name__ != "TaskStepMethWrapper":
        return None  # asyncio runs on its Python task here
    return step, wakeup
