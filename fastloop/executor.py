"""Submits the core's jobs to the standard library's thread pool.

``submit`` of a ``concurrent.futures.ThreadPoolExecutor`` makes a work item and
a concurrent future.  ``loop.run_in_executor`` puts an ExecutorJob of the core
into that executor's own queue instead; this includes the default executor.
Everything else is done by the standard library.
"""

from __future__ import annotations

from collections import deque
from concurrent.futures import ThreadPoolExecutor, thread

TYPE_CHECKING = False
if TYPE_CHECKING:
    from . import _core

#: The names that a known submit() uses.  If it uses others, this Python's
#: submit() does something that submit_job() does not.
_KNOWN_NAMES = frozenset(
    """
    BROKEN BrokenThreadPool Future RuntimeError _WorkItem
    _adjust_thread_count _base _broken _global_shutdown_lock
    _resolve_work_item_task _shutdown _shutdown_lock _work_queue put
    """.split()
)


def _is_known() -> bool:
    code = getattr(ThreadPoolExecutor.submit, "__code__", None)
    return code is not None and _KNOWN_NAMES.issuperset(code.co_names)


#: None if submit() was replaced, or if this Python's is not a known one.
thread_pool_type = ThreadPoolExecutor if _is_known() else None
submit_globals = vars(thread)


class _IdleWorkers:
    """Counts idle workers: a Semaphore for non-blocking use only.

    The executor's own Semaphore costs a microsecond for each job on 3.11, and
    for each worker that becomes idle on later versions.
    """

    def __init__(self, most: int) -> None:
        self._tokens: deque[None] = deque(maxlen=most)

    def acquire(self, timeout: float) -> bool:
        """Subtract one; return False if there was none.  Never waits."""
        try:
            self._tokens.pop()
        except IndexError:
            return False
        return True

    def release(self) -> None:
        """Add one."""
        self._tokens.append(None)


def make_default() -> ThreadPoolExecutor:
    """Return a loop's default executor, as asyncio would."""
    executor = ThreadPoolExecutor(thread_name_prefix="asyncio")
    idle = _IdleWorkers(executor._max_workers)
    executor._idle_semaphore = idle  # type: ignore[assignment]
    return executor


def submit_job(executor: ThreadPoolExecutor, job: _core.ExecutorJob) -> None:
    """Do what ``executor.submit()`` does, with a job that exists already.

    Raises RuntimeError after ``shutdown()``, when the interpreter exits, and
    if no thread can be started for the job; BrokenThreadPool, which is one
    too, if the executor's initializer has failed.
    """
    with executor._shutdown_lock, thread._global_shutdown_lock:
        if executor._broken:
            raise thread.BrokenThreadPool(executor._broken)
        if executor._shutdown:
            raise RuntimeError("cannot schedule new futures after shutdown")
        if thread._shutdown:
            raise RuntimeError(
                "cannot schedule new futures after interpreter shutdown"
            )
        executor._work_queue.put(job)  # type: ignore[arg-type]
        if len(executor._threads) >= executor._max_workers:
            return  # _adjust_thread_count() costs more than all the rest
        try:
            executor._adjust_thread_count()
        except RuntimeError:
            if not executor._threads:  # else an existing thread will run it
                job.cancel()
                raise
