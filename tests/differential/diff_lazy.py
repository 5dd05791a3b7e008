"""asyncio's loop, seldom looking at descriptors while callbacks keep coming.

fastloop leaves out polls then (src/README.md bounds how many), so an event may
be seen some turns later than by asyncio: as if the peer had been slower.  A
program in which callbacks race with a peer tells the two apart.  Whether that
is all there is to a difference, asyncio itself can say: it is run with a
selector that leaves out polls too.
"""

from __future__ import annotations

import asyncio
import selectors
from typing import Any

#: For how many turns a poll is left out, again and again; 0: for twice as
#: many after each one that found nothing, as fastloop does it.
PATTERNS = (0, 1, 2, 3, 5, 8, 16, 32)
MOST = 32


class LazySelector(selectors.DefaultSelector):
    """Finds nothing, unless it may block or has not looked for a while."""

    def __init__(self, pattern: int) -> None:
        super().__init__()
        self.pattern = pattern
        self.allowance = self.left = 0

    def select(self, timeout: float | None = None) -> Any:
        """Return what is ready, or nothing."""
        blocks = timeout is None or timeout > 0
        if self.left > 0 and not blocks:
            self.left -= 1
            return []
        ready = super().select(timeout)
        if self.pattern:
            self.allowance = self.pattern
        elif ready or blocks:
            self.allowance = 0
        else:
            self.allowance = min(2 * self.allowance or 1, MOST)
        self.left = self.allowance
        return ready


def lazy_loop(
    oracle: type[asyncio.SelectorEventLoop], pattern: int
) -> asyncio.AbstractEventLoop:
    """Return asyncio's loop with such a selector."""
    return oracle(LazySelector(pattern))
