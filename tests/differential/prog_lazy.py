"""asyncio's loop, seldom looking at descriptors while callbacks keep coming.

fastloop leaves out polls then (src/README.md bounds how many), so an event may
be seen some iterations later than by asyncio: as if the peer was slower.  In a
program whose callbacks race with a peer the two differ.  Whether that is all
there is to a difference, asyncio itself can say: it is run with a selector
that leaves out polls too.

fastloop also wakes at a timer's deadline, where asyncio waits for whole
milliseconds.  So two timers that are due microseconds apart run in one
iteration of asyncio's loop, and may run in two of fastloop's: asyncio is run
with a loop that takes one deadline in each iteration.
"""

from __future__ import annotations

import asyncio
import selectors
from asyncio import selector_events, sslproto
from collections import Counter
from typing import Any

#: For how many iterations a poll is left out, again and again; 0: for twice as
#: many after each one that found nothing, as fastloop does it.  With "b": the
#: same, and for so many iterations after one that could block.  With "r" or
#: "w": how many iterations each readable or writable descriptor waits, for
#: their order among each other is the kernel's.  "t": one deadline in each
#: iteration.
PATTERNS = (
    *(("", iterations) for iterations in (0, 1, 2, 3, 5, 8, 16, 32)),
    *(("b", iterations) for iterations in (1, 2, 3, 4)),
    *(("r", iterations) for iterations in (1, 3, 6)),
    *(("w", iterations) for iterations in (1, 3, 6)),
    ("t", 0),
)
MOST = 32
MASKS = {
    "": 0,
    "b": 0,
    "r": selectors.EVENT_READ,
    "w": selectors.EVENT_WRITE,
}


class LazySelector(selectors.DefaultSelector):
    """Finds nothing, unless it may block or has not looked for a while."""

    def __init__(self, which: str, iterations: int) -> None:
        super().__init__()
        self.mask = MASKS[which]
        self.iterations = iterations if which != "b" else 0
        self.after_wait = iterations if which == "b" else 0
        self.waited: Counter[int] = Counter()
        self.allowance = self.left = 0

    def select(self, timeout: float | None = None) -> Any:
        """Return what is ready, or less."""
        if self.mask:
            ready = super().select(timeout)
            return [row for row in ready if self.has_waited(*row)]
        blocks = timeout is None or timeout > 0
        if self.left > 0 and not blocks:
            self.left -= 1
            return []
        ready = super().select(timeout)
        if self.iterations:
            self.allowance = self.iterations
        elif ready or blocks:
            self.allowance = 0
        else:
            self.allowance = min(2 * self.allowance or 1, MOST)
        self.left = self.after_wait if blocks else self.allowance
        return ready

    def has_waited(self, key: selectors.SelectorKey, events: int) -> bool:
        """Count an iteration in which a descriptor could have been seen."""
        if not events & self.mask:
            return True
        self.waited[key.fd] += 1
        if self.waited[key.fd] <= self.iterations:
            return False
        del self.waited[key.fd]
        return True


def lazy_loop(which: str, iterations: int) -> asyncio.AbstractEventLoop:
    """Return asyncio's loop as such a pattern has it."""
    if which == "t":
        return Punctual()
    return asyncio.SelectorEventLoop(LazySelector(which, iterations))


class Punctual(asyncio.SelectorEventLoop):
    """Takes the timers of one deadline in each iteration."""

    polled = False

    def _process_events(self, events: Any) -> None:
        """Be called between the poll and the look at the timers."""
        super()._process_events(events)
        self.polled = True

    def time(self) -> float:
        """Return the first deadline, to the one that takes the timers."""
        now = super().time()
        if self.polled and self._scheduled:
            now = min(now, self._scheduled[0]._when)
        self.polled = False
        return now


def mend_pauses() -> None:
    """Have asyncio's transports keep a pause in connection_made.

    Those of early releases of 3.11 read all the same.  Mended for both loops,
    because fastloop uses these transports for sockets of some classes.
    """
    transport: Any = selector_events._SelectorTransport
    begin = transport._add_reader
    if "is_reading" in begin.__code__.co_names:
        return

    def _add_reader(self: Any, fd: Any, callback: Any, *args: Any) -> None:
        if not getattr(self, "_paused", False):
            begin(self, fd, callback, *args)

    transport._add_reader = _add_reader


def mend_closing() -> None:
    """Have is_closing() over TLS include the raw transport.

    Later releases of 3.12 and 3.13 do it, and those from 3.14 on.
    """
    transport: Any = sslproto._SSLProtocolTransport
    if hasattr(sslproto.SSLProtocol, "_is_transport_closing"):
        return
    is_closing = transport.is_closing

    def with_raw(self: Any) -> bool:
        raw = getattr(self._ssl_protocol, "_transport", None)
        return is_closing(self) or (raw is not None and raw.is_closing())

    transport.is_closing = with_raw


mend_pauses()
mend_closing()
