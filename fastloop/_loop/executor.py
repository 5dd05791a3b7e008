"""``run_in_executor``: the core's jobs in the standard library's thread pool.

``run_in_executor`` puts an ExecutorJob of the core into the executor's own
queue, in the place of a work item and a concurrent future:
``src/executor/README.md`` says when.  The standard library does the rest.
"""

from __future__ import annotations

import asyncio

from .. import _core
from . import _private

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from concurrent.futures import Executor
    from typing import Any, TypeVar, TypeVarTuple

    _T = TypeVar("_T")
    _Ts = TypeVarTuple("_Ts")

#: The module, once it is needed: few loops do, and it takes long to import.
_pool: Any = None


class ExecutorCalls(_private.LoopPart):
    """The method of a loop that calls functions in other threads."""

    _default_executor: Any

    def run_in_executor(
        self,
        executor: Executor | None,
        func: Callable[[*_Ts], _T],
        *args: *_Ts,
    ) -> asyncio.Future[_T]:
        """Call func(*args) in an executor; return an asyncio.Future.

        None is the default executor: a ThreadPoolExecutor unless one was set.
        Raises RuntimeError when the loop is closed or the default executor
        was shut down.  A call whose future is cancelled before a thread takes
        it never runs.  Implements asyncio's ``loop.run_in_executor()``.
        """
        global _pool
        # The job may wait for the peer's answer to bytes that are corked.
        _core._flush_corked()
        self._check_closed()
        if self._debug:
            self._check_callback(func, "run_in_executor")
        if _pool is None:
            from . import _pool
        pool: Any = executor
        if executor is None:
            self._check_default_executor()
            if self._default_executor is None:
                self._default_executor = _pool.make_default()
            pool = self._default_executor
        job = None
        if _pool.is_standard(pool):
            job = _core.executor_job(self, func, args)
        if job is None:
            return asyncio.wrap_future(pool.submit(func, *args), loop=self)
        _pool.submit_job(pool, job)
        return job.asyncio_future
