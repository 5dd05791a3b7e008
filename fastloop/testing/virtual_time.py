"""A loop whose clock jumps to the next timer when nothing else can happen.

The rules are those of Trio's MockClock with autojump.  ``loop.time()`` stands
still while callbacks run.  When nothing is ready, the loop waits for `idle_s`
of real time.  If no descriptor has an event by then, no other thread has
called, and nothing works for the loop any more, the clock jumps to the next
timer.  So time-outs fire in order, and real sockets and threads still get real
time.  What works for the loop:

- another thread, until it rests: until it waits, without a time limit, for a
  lock, a queue or whatever else only a thread of this process can give it.
  The kernel knows which threads do (Linux).  A daemon thread, for which the
  interpreter would not wait either, does not count.  Nor does one that was at
  work before the loop was made, until it rests;
- a job in an executor that has no threads here, until it is done;
- a child process of asyncio, until it ends.

It overrides ``time()``, the wait of ``SeededLoop._run_once()``, and the calls
of executors and of child processes that it counts.  Other loops execute not
one instruction more for it.
"""

from __future__ import annotations

import asyncio
import math
import os
import threading
import weakref
from concurrent.futures import ThreadPoolExecutor

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


_IDLE_S = 0.001
_PATIENCE_S = 10.0
#: How long one poll waits at most, in real seconds.  After that the loop looks
#: again who is at work.
_POLL_S = 0.005
#: How long a loop waits for threads that rest or, as daemons older than the
#: loop, are not its own.
_GRACE_S = 0.2
#: The number of the system call by which threads wait for locks.
_FUTEX = {"x86_64": "202", "aarch64": "98"}.get(os.uname().machine)
#: That its operation is on memory of one process.
_FUTEX_PRIVATE = 0x80
_SEES_THREADS = _FUTEX is not None and os.path.exists("/proc/self/syscall")


class DeadlockError(RuntimeError):
    """The loop would wait for ever; the text says which tasks wait where."""


class VirtualTimeLoop(SeededLoop):
    """A ``fastloop.Loop`` with virtual time, for tests.

    start is what ``time()`` returns first, in seconds.  idle_s is how much
    real time must pass without an event before the clock jumps; 1 ms by
    default.  patience_s is how much real time the loop waits for what works
    for it before the clock jumps all the same, and for a descriptor, a thread
    or an executor job before it raises ``DeadlockError``.  A clock that would
    jump beyond end raises TimeoutError instead.  seed is that of
    ``SeededLoop``.  The system's clocks (``time.monotonic()``,
    ``time.time()``) are not changed.  Raises ValueError for a number that is
    no time.
    """

    def __init__(
        self,
        *,
        start: float = 0.0,
        idle_s: float = _IDLE_S,
        patience_s: float = _PATIENCE_S,
        end: float = math.inf,
        seed: int | None = None,
    ) -> None:
        super().__init__(seed=seed)
        #: Jobs in executors whose threads do not tell that they are at work.
        self._jobs: set[asyncio.Future[Any]] = set()
        self._children: weakref.WeakSet[Any] = weakref.WeakSet()
        try:
            self._set_clock(start, idle_s, patience_s, end)
        except BaseException:
            self.close()
            raise

    # The clock stands still while timers are set: those for the same delay
    # have one deadline anyway.
    call_later = Loop.call_later

    def _set_clock(
        self,
        start: float,
        idle_s: float = _IDLE_S,
        patience_s: float = _PATIENCE_S,
        end: float = math.inf,
    ) -> None:
        """Let the clock jump from now on, with these settings."""
        if not (
            math.isfinite(start)
            and idle_s >= 0
            and patience_s >= 0
            and end > -math.inf
        ):
            raise ValueError(
                "start must be a finite time, end a time, idle_s and "
                "patience_s at least 0 s; they are "
                f"{start}, {end}, {idle_s} and {patience_s}"
            )
        self._now, self._end = float(start), end
        self._idle_s, self._patience_s = idle_s, patience_s
        #: When the clock began to follow the real time; None: it jumps.
        self._follows_since: float | None = None
        #: Threads and children for which the clock does not wait: they were at
        #: work before, or for longer than `patience_s`.
        self._ignored: weakref.WeakSet[Any] = weakref.WeakSet()
        self._ignored.update(
            thread for thread in _other_threads() if not _rests(thread)
        )

    def _follow_real_time(self) -> None:
        """Let the clock go on as the system's, until ``_set_clock()``."""
        self._now, self._follows_since = self.time(), self._real_time()

    def time(self) -> float:
        """Return the virtual time, in seconds.

        Implements asyncio's ``loop.time()``, which is the system's clock.
        """
        if self._follows_since is None:
            return self._now
        return self._now + self._real_time() - self._follows_since

    # -- what the clock waits for ---------------------------------------------

    def run_in_executor(
        self,
        executor: Executor | None,
        func: Callable[[*_Ts], _T],
        *args: *_Ts,
    ) -> asyncio.Future[_T]:
        """As ``fastloop.Loop``; the clock stands still while it is at work."""
        job = super().run_in_executor(executor, func, *args)
        if not (
            _SEES_THREADS
            and (executor is None or isinstance(executor, ThreadPoolExecutor))
        ):
            self._jobs.add(job)
            job.add_done_callback(self._jobs.discard)
        return job

    async def shutdown_default_executor(
        self, timeout: float | None = None
    ) -> None:
        """Wait for the default executor's jobs in real time.

        timeout is ignored, as it would be virtual.  Implements asyncio's
        ``loop.shutdown_default_executor()``.
        """
        await super().shutdown_default_executor()

    async def _make_subprocess_transport(
        self, *args: Any, **kwargs: Any
    ) -> Any:
        transport = await super()._make_subprocess_transport(*args, **kwargs)
        self._children.add(transport)
        return transport

    def _at_work(self) -> set[Any]:
        """Who works, besides this thread: threads, jobs, children."""
        found: set[Any] = {*self._jobs}
        # A result that is held comes, too.
        found.update(future for _, future in self._held)
        for child in [*self._children]:
            if child.get_returncode() is None:
                found.add(child)
        for thread in _other_threads():
            if _rests(thread):
                # What it does next is work that it was given.
                self._ignored.discard(thread)
            else:
                found.add(thread)
        return found

    # -- iterations -----------------------------------------------------------

    def _wait(self) -> None:
        """Wait until something is ready, or let the clock jump."""
        if self._follows_since is not None:
            super()._wait()
            return
        began = self._real_time()
        while (next_timer := _core.next_deadline(self)) > self._now:
            registered = len(_core.fd_users(self))
            workers = self._at_work()
            fresh = workers - {*self._ignored}
            awaited = {*filter(_may_delay, fresh)}
            # A thread that rests may be about to be woken by one that ends.
            others = workers or threading.active_count() > 1
            if next_timer < math.inf and not awaited:
                wait_s = self._idle_s if registered or others else 0.0
            elif (
                registered
                or fresh
                or self._signal_handlers
                or not all(getattr(each, "daemon", False) for each in workers)
            ):
                wait_s = self._patience_s
            else:
                # Daemon threads that are older than the loop are other tools'
                # as a rule, as pytest's plugins have them, but one may call.
                wait_s = min(_GRACE_S, self._patience_s) if others else 0.0
            # A poll may end early: the clock says how long it was idle.
            left_s = began + wait_s - self._real_time()
            # Also where no time is left: a thread may have called, and ended,
            # since the last poll.
            if self._poll(min(max(left_s, 0.0), _POLL_S)):
                return
            if left_s > 0:
                continue
            if next_timer == math.inf:
                text = self._deadlock(registered, len(fresh), wait_s)
                raise DeadlockError(text)
            if next_timer > self._end:
                raise TimeoutError(
                    f"the next timer is after the clock's end, {self._end:g} s"
                    f"\n{self._places()}"
                )
            self._ignored.update(awaited)
            self._now = next_timer
            return

    def _deadlock(self, registered: int, workers: int, wait_s: float) -> str:
        tasks = len(asyncio.all_tasks(self))
        text = f"deadlock: {_count(tasks, 'task')} "
        text += "waits, " if tasks == 1 else "wait, "
        text += "no timer is set, "
        if not registered:
            text += "nothing is registered"
        else:
            text += f"{_count(registered, 'descriptor')} had no event"
        if workers:
            text += f", {_count(workers, 'worker')} did not end"
        if registered or workers:
            text += f" in {wait_s:g} s of real time"
        return f"{text}\n{self._places()}"

    def _places(self) -> str:
        return "\n".join(sorted(map(_place, asyncio.all_tasks(self))))


def _other_threads() -> list[threading.Thread]:
    own = threading.get_native_id()
    return [each for each in threading.enumerate() if each.native_id != own]


def _rests(thread: threading.Thread) -> bool:
    """Whether a thread waits until another one of this process wakes it.

    That is a wait for a lock of this process (futex) without a time limit.
    False where the kernel does not say what a thread does.
    """
    try:
        with open(f"/proc/self/task/{thread.native_id}/syscall") as file:
            call, *arguments = file.read().split()
    except OSError:
        return False
    return (
        call == _FUTEX
        and int(arguments[1], 16) & _FUTEX_PRIVATE != 0
        and int(arguments[3], 16) == 0
    )


def _may_delay(worker: Any) -> bool:
    """Whether the clock waits for it: see the module's docstring."""
    if not isinstance(worker, threading.Thread):
        return True
    # The workers of a daemon thread are daemons, too.
    is_tool = worker.daemon and not threading.current_thread().daemon
    return _SEES_THREADS and not is_tool


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
