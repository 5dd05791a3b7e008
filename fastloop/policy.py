"""The event-loop policy, for programs that choose their loop with one."""

from __future__ import annotations

import asyncio
import sys
import warnings

from ._loop import _private
from .runner import new_event_loop

TYPE_CHECKING = False
if TYPE_CHECKING:
    from .loop import Loop

__all__ = ["EventLoopPolicy", "install"]


class EventLoopPolicy(_private.DefaultPolicy):
    """asyncio's default policy, but its new loops are fastloop loops.

    Everything else is inherited: which thread gets a loop, and child watchers
    up to 3.13.
    """

    def _loop_factory(self) -> Loop:
        return new_event_loop()


def install() -> None:
    """Make asyncio use fastloop, by setting the event-loop policy.

    From Python 3.14 on this emits a DeprecationWarning, as
    ``asyncio.set_event_loop_policy`` does.  On 3.16, which has no policies, it
    raises RuntimeError.
    """
    if sys.version_info >= (3, 16):
        raise RuntimeError(
            "Python 3.16 has no event-loop policies: use fastloop.run() or "
            "asyncio.Runner(loop_factory=fastloop.new_event_loop)"
        )
    if sys.version_info >= (3, 14):
        warnings.warn(
            "fastloop.install() sets the event-loop policy, which is "
            "deprecated and will be removed in Python 3.16; use "
            "fastloop.run() or "
            "asyncio.Runner(loop_factory=fastloop.new_event_loop)",
            DeprecationWarning,
            stacklevel=2,
        )
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        asyncio.set_event_loop_policy(EventLoopPolicy())
