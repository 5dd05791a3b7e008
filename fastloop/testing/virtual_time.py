"""A loop whose clock jumps to the next timer when nothing else can happen.

The rules are those of Trio's MockClock with autojump.  ``loop.time()`` stands
still while callbacks run.  When nothing is ready, the loop waits for `idle_s`
of real time.  If no descriptor has an event by then, no executor job is in
flight and no other thread has called, the clock jumps to the next timer.  So
time-outs fire in order, and real sockets and threads still get real time.

It overrides ``time()``, the wait of ``SeededLoop._run_once()``, and the two
calls of executors that it counts.  Other loops execute not one instruction
more for it.
"""

from __future__ import annotations

import asyncio
import math
import threading
import weakref
from time import monotonic

from fastloop import _core
from fastloop.loop import Loop

from .seeded import SeededLoop

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine
    from concurrent.futures import Executor
    from typing import Any, TypeVar, TypeVarTuple

    _T = TypeVar("_T")
    _Ts = TypeVarTuple("_Ts")

__all__ = ["DeadlockError", "VirtualTimeLoop", "run"]


#: How long one poll waits at most, in real seconds.
_POLL_S = 0.05
#: How long a loop waits for a daemon thread that is older than the loop.
_GRACE_S = 0.2


class DeadlockError(RuntimeError):
    """The loop would wait for ever; the text says which tasks wait where."""


class VirtualTimeLoop(SeededLoop):
    """A ``fastloop.Loop`` with virtual time, for tests.

    start is what ``time()`` returns first, in seconds.  idle_s is how much
    real time must pass without an event before the clock jumps; 1 ms by
    default.  patience_s is how much real time the loop waits for a descriptor,
    a thread or an executor job before it raises ``DeadlockError``.  seed is
    that of ``SeededLoop``.  The system's clocks (``time.monotonic()``,
    ``time.time()``) are not changed.
    """

    def __init__(
        self,
        *,
        start: float = 0.0,
        idle_s: float = 0.001,
        patience_s: float = 10.0,
        seed: int | None = None,
    ) -> None:
        super().__init__(seed=seed)
        self._now = float(start)
        self._idle_s = idle_s
        self._patience_s = patience_s
        #: Executor jobs, and waits for executors, that are not done.
        self._in_flight = 0
        self._older_threads = weakref.WeakSet(threading.enumerate())

    def time(self) -> float:
        """Return the virtual time, in seconds.

        Implements asyncio's ``loop.time()``, which is the system's clock.
        """
        return self._now

    # -- what the clock waits for ---------------------------------------------

    def run_in_executor(
        self,
        executor: Executor | None,
        func: Callable[[*_Ts], _T],
        *args: *_Ts,
    ) -> asyncio.Future[_T]:
        """As ``fastloop.Loop``; the clock stands still until it is done."""
        future = super().run_in_executor(executor, func, *args)
        self._in_flight += 1
        future.add_done_callback(self._landed)
        return future

    def _landed(self, future: asyncio.Future[Any]) -> None:
        self._in_flight -= 1

    async def shutdown_default_executor(
        self, timeout: float | None = None
    ) -> None:
        """Wait for the default executor's jobs in real time.

        timeout is ignored: the clock stands still meanwhile.  Implements
        asyncio's ``loop.shutdown_default_executor()``.
        """
        self._in_flight += 1
        try:
            await super().shutdown_default_executor()
        finally:
            self._in_flight -= 1

    def _patience(self, registered: int) -> float:
        """How much real time to wait until nothing can happen any more.

        Daemon threads that are older than the loop are other tools' as a rule,
        as pytest's plugins have them, but one may call.
        """
        workers = getattr(self._default_executor, "_threads", ())
        threads = {*threading.enumerate()} - {*workers}
        threads.discard(threading.current_thread())
        if (
            registered
            or self._in_flight
            or self._signal_handlers
            or threads - {*self._older_threads}
            or not all(thread.daemon for thread in threads)
        ):
            return self._patience_s
        return min(_GRACE_S, self._patience_s) if threads else 0.0

    # -- iterations -----------------------------------------------------------

    def _wait(self) -> None:
        """Wait until something is ready, or let the clock jump."""
        began = monotonic()
        while (next_timer := self._next_timer()) > self._now:
            registered = len(_core.fd_users(self))
            may_jump = next_timer < math.inf and not self._in_flight
            wait_s = self._patience(registered)
            if may_jump:
                wait_s = min(wait_s, self._idle_s)
            # A poll may end early: the clock says how long it was idle.
            left_s = began + wait_s - monotonic()
            # Also where no time is left: a thread may have called, and ended,
            # since the last poll.
            if self._poll(min(max(left_s, 0.0), _POLL_S)):
                return
            if left_s > 0:
                continue
            if may_jump:
                self._now = next_timer
                return
            raise DeadlockError(self._deadlock(registered))

    def _deadlock(self, registered: int) -> str:
        tasks = [task for task in asyncio.all_tasks(self) if not task.done()]
        timer = "a timer" if self._next_timer() < math.inf else "no timer"
        waits = "waits" if len(tasks) == 1 else "wait"
        text = f"deadlock: {_count(len(tasks), 'task')} {waits}, "
        text += f"{timer} is set, "
        if not registered:
            text += "nothing is registered"
        else:
            text += f"{_count(registered, 'descriptor')} had no event"
        if self._in_flight:
            text += f", {_count(self._in_flight, 'executor job')} did not end"
        if registered or self._in_flight:
            text += f" in {self._patience_s:g} s of real time"
        return "\n".join([text, *sorted(map(_place, tasks))])


def _count(number: int, word: str) -> str:
    return f"{number} {word}{'' if number == 1 else 's'}"


def _place(task: asyncio.Task[Any]) -> str:
    """Say where a task waits: its innermost frame outside of asyncio."""
    frame = None
    awaited: Any = task.get_coro()
    while (inner := getattr(awaited, "cr_frame", None)) is not None:
        module = inner.f_globals.get("__name__", "").partition(".")[0]
        if frame is None or module not in ("asyncio", "fastloop"):
            frame = inner
        awaited = awaited.cr_await
    where = "before its first line"
    if frame is not None:
        code = frame.f_code
        where = f"in {code.co_name}, {code.co_filename}:{frame.f_lineno}"
    return f"  {task.get_name()} waits {where}"


def run(
    main: Coroutine[Any, Any, _T],
    *,
    virtual_time: bool = False,
    start: float = 0.0,
    seed: int | None = None,
    debug: bool | None = None,
) -> _T:
    """Run a coroutine as ``fastloop.run()`` does, or with virtual time.

    With virtual time start is the first value of ``loop.time()``.  seed is
    that of ``SeededLoop``, with and without virtual time.  Returns the
    coroutine's result, or raises its exception; ``DeadlockError`` if with
    virtual time it would wait for ever.
    """

    def factory() -> Loop:
        if virtual_time:
            return VirtualTimeLoop(start=start, seed=seed)
        return Loop() if seed is None else SeededLoop(seed=seed)

    with asyncio.Runner(debug=debug, loop_factory=factory) as runner:
        return runner.run(main)
