"""The standard library's thread pool, as ``run_in_executor`` uses it."""

from __future__ import annotations

import types
from collections import deque
from concurrent import futures
from concurrent.futures import thread
from concurrent.futures.thread import ThreadPoolExecutor

from . import _originals

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from .. import _core

#: The names that a known submit() uses.  If it uses others, this Python's
#: submit() does something that submit_job() does not.
_KNOWN_NAMES = frozenset(
    """
    BROKEN BrokenThreadPool Future RuntimeError _WorkItem
    _adjust_thread_count _base _broken _global_shutdown_lock
    _resolve_work_item_task _shutdown _shutdown_lock _work_queue put
    """.split()
)
_submit = ThreadPoolExecutor.submit
#: None if a program has set another callable there.
_submit_code = getattr(_submit, "__code__", None)
_is_known = _originals.is_defined_in(
    thread, _submit
) and _KNOWN_NAMES.issuperset(_submit.__code__.co_names)


class _IdleWorkers:
    """Counts idle workers: a Semaphore for non-blocking use only.

    The executor's own Semaphore takes as long as all the rest of a job.
    """

    def __init__(self) -> None:
        self._tokens: deque[None] = deque()

    @property
    def _value(self) -> int:
        """The number of idle workers, under the Semaphore's own name."""
        return len(self._tokens)

    def acquire(self, timeout: float = 0) -> bool:
        """Subtract one; return False if there was none.  Never waits.

        The caller has the executor's lock, so no other thread takes the last
        token between the test and pop().  The executor passes timeout=0.
        """
        if not self._tokens:
            return False
        self._tokens.pop()
        return True

    def release(self) -> None:
        """Add one, from any thread."""
        self._tokens.append(None)


def make_default() -> ThreadPoolExecutor:
    """Return a loop's default executor, as asyncio would."""
    pool = futures.ThreadPoolExecutor(thread_name_prefix="asyncio")
    if type(pool) is ThreadPoolExecutor:  # not the application's own class
        pool._idle_semaphore = _IdleWorkers()  # type: ignore[assignment]
    return pool


def is_standard(pool: Any) -> bool:
    """Whether submit_job() may replace this executor's submit().

    An application that replaces submit() expects to be called.
    """
    kind = type(pool)
    if not (_is_known and (kind is ThreadPoolExecutor or _is_like_it(kind))):
        return False
    submit = pool.submit
    # Only an exact method is asked: see _originals.is_defined_in().  ddtrace
    # gives the function other code.
    return (
        type(submit) is types.MethodType
        and submit.__func__ is _submit
        and _submit.__code__ is _submit_code
    )


def _is_like_it(kind: type) -> bool:
    """Whether this is a subclass whose workers call as its base's do.

    From 3.14 on ``prepare_context`` decides in what they call.
    """
    if not issubclass(kind, ThreadPoolExecutor):
        return False
    own, theirs = (
        getattr(getattr(pool, "prepare_context", None), "__func__", None)
        for pool in (ThreadPoolExecutor, kind)
    )
    return own is theirs


def submit_job(pool: ThreadPoolExecutor, job: _core.ExecutorJob) -> None:
    """Do what ``pool.submit()`` does, with a job that exists already.

    Raises RuntimeError after ``shutdown()``, when the interpreter exits, and
    if the executor has no thread and none can be started: the job then never
    runs.  Raises BrokenThreadPool, a RuntimeError, if the initializer has
    failed.
    """
    with pool._shutdown_lock, thread._global_shutdown_lock:
        if pool._broken:
            raise thread.BrokenThreadPool(pool._broken)
        if pool._shutdown:
            raise RuntimeError("cannot schedule new futures after shutdown")
        if thread._shutdown:
            raise RuntimeError(
                "cannot schedule new futures after interpreter shutdown"
            )
        pool._work_queue.put(job)  # type: ignore[arg-type]
        idle: Any = getattr(pool, "_idle_semaphore", None)
        if (
            type(idle) is _IdleWorkers
            and len(pool._threads) >= pool._max_workers
        ):
            # The pool has all its threads: _adjust_thread_count() would only
            # do this acquire(), but costs more than the rest of this function.
            # The count is needed if the maximum is raised.
            idle.acquire()
            return
        try:
            pool._adjust_thread_count()
        except RuntimeError:
            if not pool._threads:  # else an existing thread will run it
                job.cancel()
                raise
