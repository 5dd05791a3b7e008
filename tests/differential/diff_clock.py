"""Time as programs know it: slots, and whether a run kept to them.

A program's timers have a slot each, and what a slot sets off has to come to
rest before the next one: else two runs interleave as the machine's load will
have it, on one loop as on the other.  Which slot it is does not follow from
the time that has passed but from the last slot that came, so a program asks
for the same slots however slowly it runs.

Just before each slot a guard of the clock's own looks at what is ready to
run.  Is it more than that slot's timer, the run is void (``Clock.late``).
"""

from __future__ import annotations

import asyncio

#: Seconds of a slot.  asyncio rounds what it waits up to a millisecond.
SLOT = 0.004
#: The part of a slot that a guard comes before it.
AHEAD = 1 / 16
#: The part of a slot that may pass until a delay is under way.
PROMPT = 1 / 2


class Clock:
    """The slots of one step after the other.

    ``patience`` is how many times longer than usual a slot is.
    """

    def __init__(
        self, loop: asyncio.AbstractEventLoop, patience: int = 1
    ) -> None:
        self.loop = loop
        self.length = SLOT * patience
        self.late = False
        self.guards: list[asyncio.TimerHandle] = []
        self.begin()

    def begin(self) -> None:
        """Begin a step: its slots are its own."""
        for guard in self.guards:
            guard.cancel()
        self.guards.clear()
        self.taken: set[int] = set()
        self.slot = 0
        self.base = self.loop.time()

    def when(self, slot: int) -> float:
        """Return the loop's time at which a slot begins."""
        return self.base + slot * self.length

    def take(self, slots: int) -> int:
        """Return the first free slot this many from now, or before it."""
        slot = self.slot + slots if slots > 0 else slots - 1
        while slot in self.taken:
            slot += 1 if slots > 0 else -1
        self.taken.add(slot)
        if slot > 0:
            self.guards.append(
                self.loop.call_at(self.when(slot - AHEAD), self.guard, slot)
            )
        return slot

    def delay(self, slots: int) -> float:
        """Return the seconds until a slot of the caller's own.

        The caller waits that long from now on, and at once.
        """
        when = self.when(self.take(slots))
        now = self.loop.time()
        self.loop.call_soon(self.prompt, now)
        self.late |= when - now < self.length * AHEAD
        return max(when - now, self.length * AHEAD)

    def prompt(self, since: float) -> None:
        """Look whether a delay began when it was asked for."""
        self.late |= self.loop.time() - since > self.length * PROMPT

    def guard(self, slot: int) -> None:
        """Look whether all is at rest, and begin a slot."""
        self.slot = max(self.slot, slot)
        soon = self.when(slot - AHEAD)
        for handle in self.loop._ready:
            timer = isinstance(handle, asyncio.TimerHandle)
            if not handle.cancelled() and not (
                timer and soon <= handle.when() < self.when(slot + 1 - AHEAD)
            ):
                self.late = True
