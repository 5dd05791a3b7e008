"""Adapters of ``loop.metrics()`` to monitoring systems."""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    from fastloop.loop import Loop


def metered(loop: Loop | None, name: str) -> Loop:
    """Enable the metrics of a loop, by default the running one; return it.

    Raises TypeError for a loop that is not fastloop's and for a name that is
    no text, RuntimeError where no loop runs and none is given.
    """
    import asyncio

    from fastloop.loop import Loop

    if not isinstance(name, str):
        raise TypeError(f"the name of a loop is a str, not {name!r}")
    running = asyncio.get_running_loop() if loop is None else loop
    if not isinstance(running, Loop):
        raise TypeError(f"a fastloop.Loop is required, not {running!r}")
    running.enable_metrics()
    return running
