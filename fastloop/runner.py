"""Making a loop and running a program on it."""

from __future__ import annotations

import asyncio

from .loop import Loop

# The typing module costs a quarter of what importing fastloop may.
TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine
    from typing import Any, TypeVar

    _T = TypeVar("_T")

__all__ = ["new_event_loop", "run"]


def new_event_loop() -> Loop:
    """Return a new ``fastloop.Loop``, not running and not set as current.

    What ``loop_factory`` arguments ask for, as in ``asyncio.Runner``,
    ``uvicorn --loop fastloop:new_event_loop`` or pytest-asyncio.  Raises
    OSError when the system has no descriptors left.
    """
    return Loop()


def run(
    main: Coroutine[Any, Any, _T],
    *,
    debug: bool | None = None,
    loop_factory: Callable[[], asyncio.AbstractEventLoop] | None = None,
    metrics: bool = False,
) -> _T:
    """Run a coroutine on a fresh loop and return its result.

    debug turns asyncio's debug mode on or off (None: as the environment
    says).  loop_factory makes the loop; ``new_event_loop`` by default.
    metrics turns on what ``loop.metrics()`` tells, and needs a loop of
    fastloop's (TypeError).  What the coroutine raises is raised; a loop that
    is running already, or something else than a coroutine, is refused as
    ``asyncio.run`` does, which this implements: it differs in the default
    loop, and knows metrics.
    """
    factory = new_event_loop if loop_factory is None else loop_factory
    if asyncio._get_running_loop() is not None:
        raise RuntimeError(
            "asyncio.run() cannot be called from a running event loop"
        )
    with asyncio.Runner(debug=debug, loop_factory=factory) as runner:
        if metrics:
            loop = runner.get_loop()
            if not isinstance(loop, Loop):
                main.close()
                raise TypeError(
                    f"metrics=True needs a loop of fastloop's, not {loop!r}"
                )
            loop.enable_metrics()
        return runner.run(main)
