"""The watchdog: reports where a callback blocks a loop, while it runs.

Each watched loop has a thread.  The thread wakes after the limit, or when the
running callback reaches the limit.  It gets the running callback and its time
from the C core (``src/core/metrics.h``).  A loop that waits for events runs no
callback.

The loop may be closed by a destructor, which runs in any thread at any time,
also in the watchdog's own.  So ``stop`` takes no lock.  The names in a report
may come from the application's code, which may wait for the loop's thread.
So the one lock is taken only to store a complete report.
"""

from __future__ import annotations

import asyncio
import atexit
import contextlib
import dataclasses
import gc
import linecache
import logging
import os
import sys
import threading
import time
import traceback
import weakref

from fastloop._loop._environment import has_gil
from fastloop.metrics import RECENT, BlockedCallback, name_of

from . import stacks

TYPE_CHECKING = False
if TYPE_CHECKING:
    from types import CodeType
    from typing import Any

    from fastloop.loop import Loop
    from fastloop.metrics import SlowCallback


#: The shortest limit: a tick of the clock by which callbacks are timed.
_LEAST_S = 0.01
#: How long close() waits for a thread that logs at that moment.
_JOIN_S = 2.0


def checked(limit_s: float) -> float:
    """Return a limit, or raise what ``Watchdog.start`` raises for it."""
    text = f"the watchdog's limit is a number of seconds from {_LEAST_S} on"
    if not isinstance(limit_s, (int, float)):
        raise TypeError(f"{text}, not {limit_s!r}")
    if not _LEAST_S <= limit_s <= threading.TIMEOUT_MAX:
        raise ValueError(f"{text}, not {limit_s!r}")
    if not has_gil():
        raise RuntimeError(
            f"there is no watchdog without a GIL: {stacks.UNREADABLE}"
        )
    return limit_s


class Watchdog:
    """The thread that watches one loop, and what it has reported."""

    def __init__(self, loop: Loop) -> None:
        self._loop = weakref.ref(loop)
        self._limit_s = _LEAST_S
        self._thread: threading.Thread | None = None
        #: How many callbacks were reported.
        self.count = 0
        #: The last reports.  Replaced as a whole, because another thread
        #: reads it without a lock.
        self.recent: tuple[BlockedCallback, ...] = ()
        self._reported = 0  # the id of the callback that was reported last
        self._gc_callback = 0  # the callback that the next two refer to
        self._gc_ns = 0  # its time in collections that have ended
        self._gc_began_ns = 0  # when the running collection began, or 0

    def start(self, limit_s: float) -> None:
        """Watch with this limit from now on; a later call changes the limit.

        Raises TypeError or ValueError for a bad limit, RuntimeError where no
        watchdog can run.
        """
        self._limit_s = checked(limit_s)
        if self._thread is not None:
            self._poke()
            return
        self._wake = threading.Lock()
        self._wake.acquire()
        self._reporting = threading.Lock()
        try:
            thread = threading.Thread(
                target=self._watch,
                args=(self._wake,),
                name="fastloop-watchdog",
                daemon=True,
            )
            self._thread = thread
            _running.add(self)  # first: another thread may fork
            thread.start()
        except RuntimeError as exc:
            # Too many threads, or a subinterpreter without daemon threads.
            self._forget()
            raise RuntimeError(f"the watchdog cannot start: {exc}") from exc
        except BaseException:  # Ctrl-C, or no memory
            self._forget()
            self._poke()  # the thread ends, if it has started
            raise
        gc.callbacks.append(self._on_gc)

    def _poke(self) -> None:
        with contextlib.suppress(RuntimeError):  # the thread is awake already
            self._wake.release()

    def stop(self) -> None:
        """End the thread and wait for it, but never for long."""
        thread = self._thread
        self._forget()
        self._poke()
        if thread is not None and thread is not threading.current_thread():
            thread.join(_JOIN_S)

    def _forget(self) -> None:
        self._thread = None
        _running.discard(self)
        # The application may have cleared the list.
        with contextlib.suppress(ValueError):
            gc.callbacks.remove(self._on_gc)

    def _on_gc(self, phase: str, info: dict[str, int]) -> None:
        """Note when a collection begins and ends, in any thread.

        With a GIL a collection in another thread also delays the callback.
        """
        if phase == "start":
            loop = self._loop()
            running = None if loop is None else loop._running_callback()
            callback = 0 if running is None else running[0]
            if callback != self._gc_callback:
                self._gc_callback, self._gc_ns = callback, 0
            self._gc_began_ns = time.monotonic_ns()
        elif self._gc_began_ns:
            self._gc_ns += time.monotonic_ns() - self._gc_began_ns
            self._gc_began_ns = 0

    def _gc_time_ns(self, callback: int) -> int:
        """Return how long collections have taken in a callback so far."""
        if callback != self._gc_callback:
            return 0
        began_ns = self._gc_began_ns
        now_ns = time.monotonic_ns()
        return self._gc_ns + (now_ns - began_ns if began_ns else 0)

    def _watch(self, wake: threading.Lock) -> None:
        me = threading.current_thread()
        try:
            wait_s = self._limit_s
            while True:
                wake.acquire(timeout=wait_s)
                loop = self._loop()
                if self._thread is not me or loop is None:
                    break
                try:
                    wait_s = self._look(loop)
                except Exception:
                    # A log handler or a repr() of the application failed.  The
                    # thread must survive to report the next callback.
                    sys.excepthook(*sys.exc_info())
                    wait_s = self._limit_s
                del loop
        finally:
            if self._thread is me:
                # The loop is gone, and was never closed; or the application's
                # excepthook has raised.
                self._forget()

    def _look(self, loop: Loop) -> float:
        """Report the callback if it ran too long; return the next wait."""
        running = loop._running_callback()
        if running is None:
            return self._limit_s
        callback, ran_ns = running
        left_s = self._limit_s - ran_ns / 1e9
        if left_s > 0:
            # The clock of callbacks ticks only every few milliseconds.
            return max(left_s, 0.001)
        if callback != self._reported:
            self._report(loop, callback, ran_ns)
        return self._limit_s

    def _report(self, loop: Loop, callback: int, ran_ns: int) -> None:
        """Report a callback, unless it has ended: then ended() reports it."""
        task: asyncio.Task[Any] | None = asyncio.current_task(loop)
        stack, outermost = stacks.stack_of(loop, Watchdog._on_gc.__code__)
        name = _name(task, outermost)
        running = loop._running_callback()
        # Or the callback has ended by now, and the loop reports it as slow.
        ended = getattr(outermost, "co_qualname", "") == "Loop._report_slow"
        if running is None or running[0] != callback or ended:
            return
        found = self._store_once(callback, name, ran_ns, tuple(stack))
        if found is not None:
            _log(found, "still runs")
            if loop._on_report is not None:
                loop._on_report(found)

    def _store_once(
        self,
        callback: int,
        name: str,
        ran_ns: int,
        stack: tuple[traceback.FrameSummary, ...] = (),
    ) -> BlockedCallback | None:
        """Count and store a report; None if the other thread has done so."""
        # The clock of callbacks may be a tick behind.
        gc_ns = min(self._gc_time_ns(callback), ran_ns)
        found = BlockedCallback(name, ran_ns, gc_ns, stack)
        with self._reporting:
            if callback <= self._reported:  # the ids only increase
                return None
            self.count += 1
            self.recent = (*self.recent, found)[-RECENT:]
            self._reported = callback
        return found

    def ended(self, slow: SlowCallback) -> SlowCallback:
        """Add to a slow callback what was reported while it ran.

        Loop._notify_slow calls this, while the core still counts the callback
        as running.  If the thread could not report it, because C code had the
        GIL all the time, it is reported here.
        """
        loop = self._loop()
        running = None if loop is None else loop._running_callback()
        if self._thread is None or loop is None or running is None:
            return slow
        callback, ran_ns = running[0], slow.duration_ns
        if ran_ns >= self._limit_s * 1e9:
            late = self._store_once(callback, slow.name, ran_ns)
            if late is not None:
                _log(late, "ended before its stack could be read")
                loop._call_hook("a report", loop._on_report, late)
        if callback != self._reported:
            return slow
        # Its report is the last: no later callback can run meanwhile, and
        # _store_once() refuses an earlier one.
        return dataclasses.replace(slow, blocked=self.recent[-1])


def _name(task: asyncio.Task[Any] | None, outermost: CodeType | None) -> str:
    """Return what runs: the task's coroutine, or the outermost function."""
    if task is None:
        return "A callback" if outermost is None else outermost.co_qualname
    try:
        return name_of(task.get_coro())
    except Exception:
        # The task's class and a repr() may be the application's, and fail.
        return type(task).__qualname__


def _log(found: BlockedCallback, state: str) -> None:
    for frame in found.stack:
        linecache.checkcache(frame.filename)
    lines = "".join(traceback.format_list(list(found.stack))).rstrip()
    logging.getLogger("asyncio").warning(
        "%s has blocked the loop for %.3f seconds, %.3f of them in the "
        "garbage collector, and %s%s",
        found.name,
        found.duration_ns / 1e9,
        found.gc_time_ns / 1e9,
        state,
        lines and f":\n{lines}",
    )


_running: set[Watchdog] = set()


def _stop_all() -> None:
    """End the threads of loops that were never closed."""
    for watchdog in list(_running):
        watchdog.stop()


def _forget_parents() -> None:
    for watchdog in list(_running):
        watchdog._forget()


atexit.register(_stop_all)
os.register_at_fork(after_in_child=_forget_parents)
