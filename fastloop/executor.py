"""The default executor: a thread pool in C that looks like asyncio's.

``loop.run_in_executor(None, ...)`` makes one on first use.  Queue, workers and
the way back to the loop are in the core; here is what runs once a thread and
once a process: making threads, joining them, and the interpreter's exit.
"""

from __future__ import annotations

import functools
import math
import os
import threading
import weakref
from concurrent.futures import ThreadPoolExecutor

from . import _core

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

__all__ = ("DefaultExecutor",)

#: More threads than any system starts.
_MOST = 1 << 31


class _Exit:
    """What the end of the interpreter, and a fork, must know."""

    def __init__(self) -> None:
        self.lock = threading.RLock()
        self.has_begun = False
        self.workers: weakref.WeakKeyDictionary[
            threading.Thread, _core.PoolWorker
        ] = weakref.WeakKeyDictionary()

    def join(self) -> None:
        """Finish what is queued in every pool and wait for its threads."""
        with self.lock:
            self.has_begun = True
        workers = list(self.workers.items())
        for _, worker in workers:
            worker.exit()
        for thread, _ in workers:
            thread.join()

    def forget(self) -> None:
        """Start anew in a forked child, where no worker thread exists."""
        self.lock = threading.RLock()
        self.workers = weakref.WeakKeyDictionary()
        _core._executor_forked()


_exit = _Exit()
# As concurrent.futures.thread: before the threads that are not daemons are
# joined, and in every subinterpreter.
threading._register_atexit(_exit.join)  # type: ignore[attr-defined]
os.register_at_fork(after_in_child=_exit.forget)


def _pause() -> None:
    """Do nothing: to enter the interpreter is what matters."""


def _start(
    threads: set[threading.Thread], prefix: str, worker: _core.PoolWorker
) -> None:
    """Start the thread of a worker; called by the core."""
    with _exit.lock:
        if _exit.has_begun:
            raise RuntimeError(
                "cannot schedule new futures after interpreter shutdown"
            )
        thread = threading.Thread(
            target=worker.run,
            args=(_pause,),
            name=f"{prefix}_{worker.index}",
        )
        threads.add(thread)
        _exit.workers[thread] = worker
        try:
            thread.start()
        except BaseException:
            # An interrupt may come when the thread runs already.
            if worker.give_up():
                threads.discard(thread)
                del _exit.workers[thread]
            raise


class _WorkQueue:
    """Stands for ThreadPoolExecutor's queue, whose length programs read."""

    def __init__(self, executor: DefaultExecutor) -> None:
        self._executor = weakref.ref(executor)

    def qsize(self) -> int:
        """Return how many calls wait for a thread."""
        executor = self._executor()
        return 0 if executor is None else executor._queued

    def empty(self) -> bool:
        """Return whether no call waits for a thread."""
        return self.qsize() == 0


class DefaultExecutor(_core.ThreadPool, ThreadPoolExecutor):
    """The thread pool behind ``loop.run_in_executor(None, ...)``.

    It is a ``concurrent.futures.ThreadPoolExecutor`` to whoever looks, with
    the same ``submit``, ``map`` and ``shutdown``; threads start on demand, up
    to ``max_workers`` (asyncio's default: the CPUs and 4, at most 32), are
    named ``asyncio_0`` and on, and end when the executor is shut down or
    garbage, or when the interpreter exits, after the calls that wait.
    """

    def __init__(
        self, max_workers: int | None = None, thread_name_prefix: str = ""
    ) -> None:
        """Make a pool without threads.

        Raises ValueError unless max_workers is positive, TypeError if it is
        no number.
        """
        if max_workers is None:
            count = getattr(os, "process_cpu_count", os.cpu_count)
            max_workers = min(32, (count() or 1) + 4)
        if max_workers <= 0:
            raise ValueError("max_workers must be greater than 0")
        self._max_workers = max_workers
        self._thread_name_prefix = thread_name_prefix or "asyncio"
        self._threads: set[threading.Thread] = set()
        self._broken = False
        start = functools.partial(
            _start, self._threads, self._thread_name_prefix
        )
        # What asyncio compares with a count of threads may be a fraction.
        limit = max_workers if max_workers < _MOST else _MOST
        _core.ThreadPool.__init__(self, math.ceil(limit), start)

    @property
    def _work_queue(self) -> Any:
        return _WorkQueue(self)

    def shutdown(
        self, wait: bool = True, *, cancel_futures: bool = False
    ) -> None:
        """Take no more calls; let the threads end after those that wait.

        With ``wait``, return when all threads have ended; with
        ``cancel_futures``, cancel the calls that wait instead of running
        them.  As ``concurrent.futures.Executor.shutdown``.
        """
        self._stop(cancel_futures)
        if wait:
            with _exit.lock:  # none of them is about to start
                threads = list(self._threads)
            for thread in threads:
                thread.join()
