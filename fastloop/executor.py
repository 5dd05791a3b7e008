"""What the core needs of the standard thread pool.

``loop.run_in_executor`` with a ``concurrent.futures.ThreadPoolExecutor``, the
default executor among them, puts a job of the core's into that executor's own
queue, in place of the work item and the future that ``submit`` would make.
Everything else is the standard library's.
"""

from __future__ import annotations

from collections import deque
from concurrent.futures import ThreadPoolExecutor, thread

TYPE_CHECKING = False
if TYPE_CHECKING:
    from . import _core

#: What submit() may refer to if submit_job() is to do the same.
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


#: None when it is replaced, or of a Python whose submit() does other things.
thread_pool_type = ThreadPoolExecutor if _is_known() else None
submit_globals = vars(thread)


class _IdleWorkers:
    """Counts workers without a job: a Semaphore that nobody waits for.

    The executor's own costs a microsecond for each job on 3.11, and for each
    worker that falls asleep on later versions.
    """

    def __init__(self, most: int) -> None:
        self._tokens: deque[None] = deque(maxlen=most)

    def acquire(self, timeout: float) -> bool:
        """Take one away; return whether there was one."""
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
    """Do what ``executor.submit()`` does, with a job that was made already.

    Raises RuntimeError after ``shutdown()`` or at the interpreter's end, and
    when no thread can be started for the job.
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
            return  # to ask for one more costs more than all the rest
        try:
            executor._adjust_thread_count()
        except RuntimeError:
            if not executor._threads:  # else one of them will come to it
                job.cancel()
                raise
