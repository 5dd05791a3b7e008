"""A loop whose clock jumps to the next timer when nothing else can happen.

``docs/testing.md`` has the rules, which are those of Trio's MockClock with
autojump, and says who is at work for a loop.
"""

import asyncio
import math
import os
import resource
import threading
import weakref
from collections.abc import Coroutine
from concurrent.futures import ThreadPoolExecutor
from typing import Any, TypeVar

from fastloop.loop import Loop

from .seeded import SeededLoop, _Future

_T = TypeVar("_T")

#: How long one poll waits at most, in real seconds.  After that the loop looks
#: again who is at work.
_POLL_S = 0.005
#: How long a loop with nothing to wait for waits for threads that rest.
_GRACE_S = 0.2


def _find_futex() -> str | None:
    """Return the number of the system call by which threads wait for locks.

    The kernel says that this thread is in read(), whose number tells the
    machine.  None on other machines, and where the kernel says nothing.
    """
    try:
        with open("/proc/thread-self/syscall") as file:
            read = file.read().partition(" ")[0]
    except OSError:
        return None
    # x86-64, and the later ones, such as arm64.
    known = {"0": "202", "63": "98"}
    if os.uname().machine[0] in "aix":
        known["3"] = "240"  # of 32-bit ARM and x86; PowerPC's is another
    return known.get(read)


_FUTEX = _find_futex()


class DeadlockError(RuntimeError):
    """The loop would wait for ever; the text says which tasks wait where."""


class VirtualTimeLoop(SeededLoop):
    """A ``fastloop.Loop`` with virtual time, for tests.

    start is what ``time()`` returns first, in seconds.  idle_s is how much
    real time must pass without an event before the clock jumps.  patience_s is
    how much the loop waits for those who work for it, and for descriptors,
    before it jumps all the same, or raises ``DeadlockError``.  A clock that
    would jump beyond end raises TimeoutError instead.  seed is that of
    ``SeededLoop``.  The system's clocks are not changed.  Raises ValueError
    for a number that is no time.
    """

    def __init__(
        self,
        *,
        start: float = 0.0,
        idle_s: float = 0.001,
        patience_s: float = 10.0,
        end: float = math.inf,
        seed: int | None = None,
    ) -> None:
        super().__init__(seed=seed)
        #: Jobs in executors whose threads do not tell that they are at work.
        self._jobs: set[_Future] = set()
        self._children: weakref.WeakSet[Any] = weakref.WeakSet()
        #: When the clock began to follow the real time; None: it jumps.
        self._follows_since: float | None = None
        self._now = 0.0
        clock = {"start": start, "idle_s": idle_s, "patience_s": patience_s}
        try:
            self._go_by(clock | {"end": end})
        except BaseException:
            self.close()
            raise

    # The clock stands still while timers are set: those for the same delay
    # have one deadline anyway.
    call_later = Loop.call_later

    def _go_by(self, clock: dict[str, float] | None) -> None:
        """Let the clock jump, with settings as ``__init__()`` takes them.

        None lets it go on as the system's.
        """
        if clock is None:
            self._now, self._follows_since = self.time(), self._real_time()
            return
        clock = {"start": self.time(), "end": math.inf} | clock
        self._now, self._end = float(clock["start"]), clock["end"]
        self._idle_s, self._patience_s = clock["idle_s"], clock["patience_s"]
        is_valid = math.isfinite(self._now) and not math.isnan(self._end)
        if not (is_valid and self._idle_s >= 0 and self._patience_s >= 0):
            raise ValueError(
                "start must be a finite time, end a time, idle_s and "
                f"patience_s at least 0 s, in {clock}"
            )
        self._follows_since = None
        #: For whom the clock does not wait, until they rest or are elsewhere:
        #: they were at work before, or have been for longer than `patience_s`.
        self._ignored = {(w, _call_of(w)) for w in _busy_threads()}
        self._found_before: set[Any] = set()

    def time(self) -> float:
        """Return the virtual time, in seconds.

        Implements asyncio's ``loop.time()``, which is the system's clock.
        """
        if self._follows_since is None:
            return self._now
        return self._now + self._real_time() - self._follows_since

    def run_in_executor(  # type: ignore[override]
        self, executor: Any, func: Any, *args: Any
    ) -> _Future:
        """As ``fastloop.Loop``; the clock stands still while it is at work."""
        job = super().run_in_executor(executor, func, *args)
        kinds = (ThreadPoolExecutor, type(None))
        if _FUTEX is None or not isinstance(executor, kinds):
            self._jobs.add(job)
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
        self._jobs = {job for job in self._jobs if not job.done()}
        # A result that is held comes, too.
        found = _busy_threads() | self._jobs | {job for job, _ in self._held}
        found |= {c for c in self._children if c.get_returncode() is None}
        # A lock of the interpreter's own is no rest: it lasts for one look.
        kept = found | self._found_before
        # A thread that ran when it was found is idle where it waits first.
        self._ignored = {
            (w, call or _call_of(w)) for w, call in self._ignored if w in kept
        }
        self._found_before = found
        # Daemons that are older than the loop are other tools' as a rule.
        return found - {w for w, _ in self._ignored if _is_daemon(w)}

    def _run_once(self) -> None:
        if self._follows_since is not None:
            super()._run_once()
        elif not self._iterate(0):
            self._wait()

    def _wait(self) -> None:
        """Iterate until something has run, or let the clock jump."""
        began, quiet_since = self._real_time(), math.inf
        while (next_timer := self._next_deadline) > self._now:
            has_timer = next_timer < math.inf
            registered = len(self._fd_users())
            workers = self._at_work()
            delaying = {
                w
                for w in filter(_delays_clock, workers)
                if not self._ignored & {(w, ""), (w, _call_of(w))}
            }
            # At one look a thread may wait for a lock of the interpreter's.
            now = self._real_time()
            quiet_since = math.inf if delaying else min(quiet_since, now)
            # One of them that ends may have to wake another that rests.
            has_threads = threading.active_count() > 1
            if delaying or (
                not has_timer
                and (registered or workers or self._signal_handlers)
            ):
                until = began + self._patience_s
            elif registered or has_threads:
                until = quiet_since + (self._idle_s if has_timer else _GRACE_S)
            else:
                until = began
            if not has_timer and has_threads and not asyncio.all_tasks(self):
                # Nobody waits: it serves calls of other threads.
                until = math.inf
            # A poll may end early: the clock says how long it was idle.
            left_s = until - self._real_time()
            # Also where no time is left: a thread may have called, and ended,
            # since the last poll.
            if self._iterate(min(left_s, _POLL_S)):
                return
            if left_s > 0:
                continue
            if not has_timer:
                raise DeadlockError(self._deadlock(registered, workers))
            if next_timer > self._end:
                raise TimeoutError(
                    f"the next timer is after the clock's end, {self._end:g} s"
                    f"\n{self._places()}"
                )
            self._ignored |= {(w, _call_of(w)) for w in delaying}
            self._now = next_timer
            return

    def _deadlock(self, registered: int, workers: set[Any]) -> str:
        workers = workers - {None}
        tasks = len(asyncio.all_tasks(self))
        text = f"deadlock: {_count(tasks, 'task')} wait{'s' * (tasks == 1)}, "
        text += "no timer is set, "
        silent = f"{_count(registered, 'descriptor')} had no event"
        text += silent if registered else "nothing is registered"
        if workers:
            text += f", {_count(len(workers), 'worker')} did not end"
        if registered or workers:
            text += f" in {self._patience_s:g} s of real time"
        return f"{text}\n{self._places()}"

    def _places(self) -> str:
        return "\n".join(sorted(map(_place, asyncio.all_tasks(self))))


def _busy_threads() -> set[Any]:
    """The other threads that do not rest; None: one that ran meanwhile.

    It may have woken another one that was looked at before.  The thread of
    pytest-timeout only waits.
    """
    own = threading.get_native_id()  # get_ident() is what suites replace
    others: set[Any] = {
        each
        for each in threading.enumerate()
        if each.native_id != own
        and not each.name.startswith("pytest_timeout ")
    }
    if not others or _FUTEX is None:
        return others
    before = _count_stops()
    busy = {each for each in others if not _rests(each)}
    if busy == others or _count_stops() == before:
        return busy
    return busy | {None}


def _count_stops() -> int:
    """How often the other threads have stopped running."""
    own = _stops(resource.RUSAGE_THREAD)
    while True:
        others = _stops(resource.RUSAGE_SELF) - own
        before, own = own, _stops(resource.RUSAGE_THREAD)
        if own == before:  # else this thread stopped in between
            return others


def _stops(whose: int) -> int:
    usage = resource.getrusage(whose)
    return usage.ru_nvcsw + usage.ru_nivcsw


def _rests(thread: threading.Thread) -> bool:
    """Whether a thread waits until another one of this process wakes it.

    That is a wait for a lock (futex) that is private and has no time limit.
    """
    folder = f"/proc/self/task/{thread.native_id}"
    try:
        with open(f"{folder}/syscall") as file:
            call, *arguments = file.read().split()
        # A thread that was woken for another CPU still seems to be in the
        # call, until that CPU takes it.  Its state is R by then.
        with open(f"{folder}/stat") as file:
            sleeps = file.read().rpartition(")")[2].split()[0] == "S"
    except OSError:
        return False  # It has ended.
    if not getattr(thread, "pending_work_items", True):
        # A ProcessPoolExecutor's, whose children have no job.
        return sleeps and call not in ("running", _FUTEX)
    is_lock = call == _FUTEX and int(arguments[1], 16) & 0x80 != 0
    return sleeps and is_lock and int(arguments[3], 16) == 0


def _call_of(worker: Any) -> str:
    """Return the system call in which a thread waits, and its descriptor.

    "" if it is no thread, runs, waits for a lock, or cannot be seen.
    """
    tid = getattr(worker, "native_id", None)
    try:
        with open(f"/proc/self/task/{tid}/syscall") as file:
            call, *arguments = file.read().split()
    except (OSError, ValueError):
        return ""
    return f"{call} {arguments[0]}" if arguments and call != _FUTEX else ""


def _is_daemon(worker: Any) -> bool:
    return getattr(worker, "daemon", False)


def _delays_clock(worker: Any) -> bool:
    """Whether the clock waits for it: ``docs/testing.md`` has the rules."""
    if _FUTEX is None and isinstance(worker, threading.Thread):
        return False
    # A daemon thread's workers are daemons: see Starlette's TestClient.  And
    # who starts a daemon waits for it, until it has a native_id.
    starts = getattr(worker, "native_id", 0) is None
    own = threading.current_thread().daemon
    return starts or own or not _is_daemon(worker)


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

    start and seed are those of ``VirtualTimeLoop``; a seed works without
    virtual time, too.  Returns the coroutine's result, or raises its
    exception; ``DeadlockError`` if with virtual time it would wait for ever.
    """

    def factory() -> Loop:
        if virtual_time:
            return VirtualTimeLoop(start=start, seed=seed)
        return Loop() if seed is None else SeededLoop(seed=seed)

    with asyncio.Runner(debug=debug, loop_factory=factory) as runner:
        return runner.run(main)
