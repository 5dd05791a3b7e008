"""Which callables asyncio's C task hands to ``loop.call_soon``.

The core runs a task's own steps without making a handle for each.  To know
them it needs one of each kind, and the only way to get one is to watch a task
on a stub loop; this runs once, when the extension is imported.
"""

from __future__ import annotations

import asyncio
import threading

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any


class _StubLoop:
    """The least of a loop that a task talks to, keeping what it is given."""

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
    """The callables for a task's step and for its wake-up.

    Returns None where asyncio's task is not the C one, or behaves in a way
    this does not know: the core then treats steps as any other callback.
    """
    if asyncio._get_running_loop() is None:
        return _probe_a_task()
    # A thread that runs a loop is in the middle of a task of its own.
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

    # Named, for the names that asyncio gives are numbered.
    task = asyncio.Task(wait(), loop=loop, name="fastloop-probe")
    asyncio._set_running_loop(loop)
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
        asyncio._set_running_loop(None)
    if type(step).__name__ != "TaskStepMethWrapper":
        return None  # asyncio runs on its Python task here
    return step, wakeup
