"""Adapters of what loops count and report to monitoring systems."""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from fastloop.loop import Loop


def metered(loop: Loop | None, name: str) -> Loop | None:
    """Enable the metrics of a loop, by default the running one; return it.

    None: FASTLOOP_DISABLE=loop gave the program asyncio's own loop.  Raises
    TypeError for a loop that is not fastloop's and for a name that is no text,
    RuntimeError where no loop runs and none is given, NotImplementedError on
    Windows.
    """
    import asyncio

    from fastloop._loop._environment import is_off

    if not isinstance(name, str):
        raise TypeError(f"the name of a loop is a str, not {name!r}")
    found: Any = asyncio.get_running_loop() if loop is None else loop
    # Not by its class: fastloop.loop imports what calls this.
    if hasattr(found, "enable_metrics"):
        found.enable_metrics()
        return found  # type: ignore[no-any-return]
    if is_off():
        return None
    raise TypeError(f"a fastloop.Loop is required, not {found!r}")
