"""A loop that draws from a seed what asyncio leaves open, to find races.

A program may rely by chance on an order that asyncio does not promise: of the
events that one poll finds, of timers with one deadline, of results from
threads.  This loop draws these orders, and by how many iterations (0 to 3) an
event or a result is late.  What asyncio promises stays: callbacks of
``call_soon`` run in their order, and bytes of one connection arrive in theirs.

It overrides ``_run_once()``, ``run_in_executor()`` and ``call_later()``.
Other loops execute not one instruction more for it.
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
    from contextvars import Context
    from typing import Any, TypeVar, TypeVarTuple

    _T = TypeVar("_T")
    _Ts = TypeVarTuple("_Ts")

__all__ = ["SeededLoop"]

#: By how many iterations an event or a result is late at most.
_MOST_LATE = 3
#: How long a job's result waits at most for those of others, in real seconds.
_HOLD_S = 0.05
#: Longer delays, which no test waits for, may be infinite or beyond a float.
_MOST_DELAY_S = 1e6


class SeededLoop(Loop):
    """A ``fastloop.Loop`` whose order of events is drawn from a seed.

    seed is an int; None draws nothing.  The same seed gives the same order, as
    far as the events come at the same times.
    """

    def __init__(self, *, seed: int | None = None) -> None:
        super().__init__()
        self._random = random.Random(seed)
        self._draws = seed is not None
        #: Polls since the last one that put nothing off.
        self._late_polls = 0
        #: Jobs of executors for whose end the results of others wait.
        self._awaited: set[asyncio.Future[Any]] = set()
        #: Jobs that are done, each with the future that the program has.
        self._held: list[tuple[asyncio.Future[Any], asyncio.Future[Any]]] = []
        self._held_until = 0.0

    def _real_time(self) -> float:
        """The system's clock, also where a test freezes Python's."""
        return Loop.time(self)

    # -- timers and jobs ------------------------------------------------------

    def call_later(
        self,
        delay: float,
        callback: Callable[[*_Ts], object],
        *args: *_Ts,
        context: Context | None = None,
    ) -> _core.TimerHandle:
        """As ``fastloop.Loop``; with a seed the deadline is a full ms.

        So timers that are set one after the other for the same delay have one
        deadline, as by a clock that is less exact.
        """
        if not self._draws or not 0 < delay < _MOST_DELAY_S:
            return super().call_later(delay, callback, *args, context=context)
        when = math.ceil((self.time() + delay) * 1000) / 1000
        return self.call_at(when, callback, *args, context=context)

    def run_in_executor(
        self,
        executor: Executor | None,
        func: Callable[[*_Ts], _T],
        *args: *_Ts,
    ) -> asyncio.Future[_T]:
        """As ``fastloop.Loop``; with a seed the result may be late.

        It waits until the other jobs are done, for 50 ms at most, so that
        their order can be drawn.
        """
        job = super().run_in_executor(executor, func, *args)
        if not self._draws:
            return job
        future: asyncio.Future[_T] = self.create_future()
        self._awaited.add(job)
        job.add_done_callback(lambda _: self._hold(job, future))
        future.add_done_callback(
            lambda _: job.cancel() if future.cancelled() else None
        )
        return future

    def _hold(
        self, job: asyncio.Future[_T], future: asyncio.Future[_T]
    ) -> None:
        self._awaited.discard(job)
        if not self._held:
            self._held_until = self._real_time() + _HOLD_S
        self._held.append((job, future))

    def _release(self) -> bool:
        """Deliver what is held, if no other job is awaited any more."""
        if not self._held or (
            self._awaited and self._real_time() < self._held_until
        ):
            return False
        # A job that is still at work is a long one: none waits for it again.
        self._awaited.clear()
        held, self._held = self._held, []
        self._random.shuffle(held)
        for job, future in held:
            self._deliver(job, future, self._random.randint(0, _MOST_LATE))
        return True

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

    # -- iterations -----------------------------------------------------------

    def _run_once(self) -> None:
        if not self._poll(0):
            self._wait()
        self._run_ready(self._bits())

    def _bits(self) -> int:
        """Return random bits for the core; 0 draws nothing."""
        return self._random.getrandbits(64) if self._draws else 0

    def _wait(self) -> None:
        """Wait until something is ready or a timer is due."""
        wait_s = min(_core.next_deadline(self) - self.time(), 3600)
        if wait_s > 0:
            self._poll(wait_s)

    def _poll(self, seconds: float) -> bool:
        """Poll, and return whether something is ready."""
        if self._held:
            seconds = min(seconds, self._held_until - self._real_time())
        self._late_polls = (self._late_polls + 1) % (_MOST_LATE + 1)
        ready = self._poll_for(seconds, self._bits(), self._late_polls > 0)
        return self._release() or ready
