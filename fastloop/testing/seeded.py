"""A loop that shuffles by a seed what asyncio leaves open, to find races.

Those are the events of one poll, timers with one deadline, and results from
threads: ``docs/testing.md`` says how late each may be.  Other loops execute
not one instruction more for it.
"""

import asyncio
import math
import random
from typing import Any

from fastloop import _core
from fastloop.loop import Loop

_Future = asyncio.Future[Any]

#: By how many iterations a result is late at most.
_MOST_LATE = 3
#: How long a job's result waits at most for those of others, in real seconds.
_HOLD_S = 0.05


class SeededLoop(Loop):
    """A ``fastloop.Loop`` whose events are shuffled by a seed.

    seed is an int; None shuffles nothing.  The same seed gives the same order,
    as far as the events come at the same times.
    """

    def __init__(self, *, seed: int | None = None) -> None:
        super().__init__()
        try:
            self._random = random.Random(seed)
        except BaseException:
            self.close()
            raise
        self._shuffles = seed is not None
        #: Jobs of executors for whose end the results of others wait.
        self._awaited: set[_Future] = set()
        #: Jobs that are done, each with the future that the program has.
        self._held: list[tuple[_Future, _Future]] = []
        self._held_until = 0.0

    def _real_time(self) -> float:
        """The system's clock, also where a test freezes Python's."""
        return Loop.time(self)

    def call_later(  # type: ignore[override]
        self, delay: float, callback: Any, *args: Any, context: Any = None
    ) -> _core.TimerHandle:
        """As ``fastloop.Loop``; with a seed the deadline is a full ms.

        So timers that are set one after the other for the same delay have one
        deadline, as by a clock that is less exact.
        """
        if not (self._shuffles and delay > 0):
            return super().call_later(delay, callback, *args, context=context)
        when = round(self.time() + delay + 0.0005, 3)
        return self.call_at(when, callback, *args, context=context)

    def run_in_executor(  # type: ignore[override]
        self, executor: Any, func: Any, *args: Any
    ) -> _Future:
        """As ``fastloop.Loop``; with a seed the result may be late.

        It waits until the other jobs are done, for 50 ms at most, so that
        they can be shuffled.
        """
        job = super().run_in_executor(executor, func, *args)
        if not self._shuffles:
            return job
        future: _Future = self.create_future()
        self._awaited.add(job)
        job.add_done_callback(lambda _: self._hold(job, future))
        future.add_done_callback(lambda _: job.cancel())
        return future

    def _hold(self, job: _Future, future: _Future) -> None:
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

    def _deliver(self, job: _Future, future: _Future, late: int) -> None:
        """Give a job's outcome to the future, so many iterations late."""
        if future.done():
            if not job.cancelled():
                job.exception()  # or its text would be logged as never read
            return
        if late:
            self.call_soon(self._deliver, job, future, late - 1)
        elif job.cancelled():
            future.cancel()
        elif (exc := job.exception()) is not None:
            future.set_exception(exc)
        else:
            future.set_result(job.result())

    def _run_once(self) -> None:
        self._iterate(math.inf)

    def _iterate(self, seconds: float) -> bool:
        """Wait at most so long; return whether there was anything to run."""
        released = self._release()
        if self._held:
            seconds = min(seconds, self._held_until - self._real_time())
        bits = self._random.getrandbits(64) if self._shuffles else 0
        return self._run_shuffled(seconds, bits) or released or self._stopping
