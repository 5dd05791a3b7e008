"""A loop that draws from a seed what asyncio leaves open, to find races.

A program may rely by chance on an order that asyncio does not promise: of the
events that one poll finds, of timers with one deadline, of results from
threads.  This loop draws these orders, and by how many iterations (0 to 3) an
event or a result is late.  What asyncio promises stays: callbacks of
``call_soon`` run in their order, and bytes of one connection arrive in theirs.

It overrides ``_run_once()`` and ``run_in_executor()``.  Other loops execute
not one instruction more for it.
"""

from __future__ import annotations

import asyncio
import math
import random

from fastloop import _core
from fastloop.loop import Loop

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from concurrent.futures import Executor
    from typing import TypeVar, TypeVarTuple

    _T = TypeVar("_T")
    _Ts = TypeVarTuple("_Ts")

__all__ = ["SeededLoop"]

#: By how many iterations an event or a result is late at most.
_MOST_LATE = 3


class SeededLoop(Loop):
    """A ``fastloop.Loop`` whose order of events is drawn from a seed.

    seed is an int; None draws nothing.  The same seed gives the same order, as
    far as the events come at the same times.
    """

    def __init__(self, *, seed: int | None = None) -> None:
        super().__init__()
        self._random = None if seed is None else random.Random(seed)
        #: Polls since the last one that put nothing off.
        self._late_polls = 0

    def run_in_executor(
        self,
        executor: Executor | None,
        func: Callable[[*_Ts], _T],
        *args: *_Ts,
    ) -> asyncio.Future[_T]:
        """As ``fastloop.Loop``; with a seed the result may be late."""
        job = super().run_in_executor(executor, func, *args)
        late = (
            0 if self._random is None else self._random.randint(0, _MOST_LATE)
        )
        if not late:
            return job
        future: asyncio.Future[_T] = self.create_future()
        job.add_done_callback(lambda _: self._deliver(job, future, late))
        future.add_done_callback(
            lambda _: job.cancel() if future.cancelled() else None
        )
        return future

    def _deliver(
        self,
        job: asyncio.Future[_T],
        future: asyncio.Future[_T],
        iterations: int,
    ) -> None:
        """Give a job's outcome to the future, so many iterations later."""
        if future.done():
            return
        if iterations:
            self.call_soon(self._deliver, job, future, iterations - 1)
        elif job.cancelled():
            future.cancel()
        elif (exc := job.exception()) is not None:
            future.set_exception(exc)
        else:
            future.set_result(job.result())

    def _run_once(self) -> None:
        if not self._poll(0):
            self._wait()
        self._run_ready(self._bits())

    def _bits(self) -> int:
        """Return random bits for the core; 0 draws nothing."""
        return 0 if self._random is None else self._random.getrandbits(64)

    def _wait(self) -> None:
        """Wait until something is ready or a timer is due."""
        wait_s = min(self._next_timer() - self.time(), 3600)
        if wait_s > 0:
            self._poll(wait_s)

    def _poll(self, seconds: float) -> bool:
        """Poll, and return whether something is ready."""
        self._late_polls = (self._late_polls + 1) % (_MOST_LATE + 1)
        return self._poll_for(seconds, self._bits(), self._late_polls > 0)

    def _next_timer(self) -> float:
        timers = _core.scheduled_handles(self)
        whens = (timer.when() for timer in timers if not timer.cancelled())
        return min(whens, default=math.inf)
