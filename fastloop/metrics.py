"""What a loop has done: the immutable answers of ``loop.metrics()``.

The core counts (``src/core/metrics.h`` says what exactly, and what that
costs); here the counts get their names and what can be worked out of them.
"""

from __future__ import annotations

import asyncio
import dataclasses
import functools
import traceback
import types
import weakref
from collections import deque
from dataclasses import dataclass

TYPE_CHECKING = False
if TYPE_CHECKING:
    from types import CodeType, FrameType
    from typing import Any

    from .loop import Loop

__all__ = ["Lag", "LoopMetrics", "SlowCallback"]

_LAG_BUCKETS = 27
#: How many slow callbacks of a loop are remembered, for fastloop's top.
_RECENT = 16

#: The last slow callbacks of each loop that counts.
recent_slow: weakref.WeakKeyDictionary[Loop, deque[SlowCallback]]
recent_slow = weakref.WeakKeyDictionary()


@dataclass(frozen=True, slots=True)
class Lag:
    """A histogram of how late the loop was.

    One value is the time from the end of a poll to the beginning of the next:
    for so long the loop ran callbacks, or waited for the GIL, and did not
    look.  What became ready meanwhile was queued so much later, at most.

    ``counts[i]`` values were at most ``bounds_ns[i]`` and above the bound
    before; the last of ``counts`` is of those above every bound.  ``sum_ns``
    and ``max_ns`` are of all values.
    """

    counts: tuple[int, ...]
    sum_ns: int
    max_ns: int
    bounds_ns: tuple[int, ...] = tuple(
        1024 << at for at in range(_LAG_BUCKETS - 1)
    )

    @property
    def count(self) -> int:
        """How many values there are: one for each time the loop looked."""
        return sum(self.counts)

    @property
    def mean_ns(self) -> float:
        """The mean; 0.0 of no values."""
        count = self.count
        return self.sum_ns / count if count else 0.0

    def percentile_ns(self, percent: float) -> float:
        """Estimate below what so many percent of the values are.

        Values are taken to lie evenly in their bucket, of which the next is
        twice as wide.  0.0 of no values.  Raises ValueError for a percentage
        that is not within 0 and 100.
        """
        if not 0 <= percent <= 100:
            raise ValueError("a percentage is within 0 and 100")
        rank = self.count * percent / 100
        below = 0
        for at, count in enumerate(self.counts):
            if count and below + count >= rank:
                low = self.bounds_ns[at - 1] if at else 0
                last = at == len(self.bounds_ns)
                high = self.max_ns if last else self.bounds_ns[at]
                value = low + (high - low) * (rank - below) / count
                return min(value, float(self.max_ns))
            below += count
        return 0.0

    def since(self, earlier: Lag) -> Lag:
        """Return the histogram of what came after an earlier one.

        ``max_ns`` is the bound of the highest bucket that has values, or the
        maximum of all if that is less: the core keeps no other.
        """
        counts = tuple(
            now - before
            for now, before in zip(self.counts, earlier.counts, strict=True)
        )
        most = max((at for at, n in enumerate(counts) if n), default=-1)
        bounds = (*self.bounds_ns, self.max_ns)
        return Lag(
            counts,
            self.sum_ns - earlier.sum_ns,
            min(bounds[most], self.max_ns) if most >= 0 else 0,
        )


#: What tells of now, and not of all that was since metrics began.
_OF_NOW = frozenset(
    """
    busy_ns ready ready_high_water timers timers_high_water connections_open
    write_buffer_bytes executor_threads executor_queue executor_running
    """.split()
)


@dataclass(frozen=True, slots=True, kw_only=True)
class LoopMetrics:
    """What a loop has done since ``enable_metrics()``, and how it is now.

    Times are in nanoseconds of ``time.monotonic()``, and what goes on now
    counts.  Connections and bytes are those of stream transports, TLS bytes
    as they are on the wire; bytes of datagram transports count, too.  What
    ``loop.sock_recv()`` and its kin, pipes and ``sendfile`` move does not.
    """

    #: How long metrics have been on.
    elapsed_ns: int
    #: Iterations of the loop.
    turns: int
    #: System calls that looked for events; a turn may go without.
    polls: int
    #: Callbacks, events and steps of tasks that were run.
    callbacks: int
    #: Time in callbacks, with all that the loop does between two polls.
    callback_time_ns: int
    #: Time in polls that do not wait, for there is something to run.
    poll_time_ns: int
    #: Time in polls that wait.
    sleep_time_ns: int
    #: Time from such a poll's end until the thread had the GIL again.
    gil_wait_time_ns: int
    #: How long the loop has not looked for events now; 0 while it does.
    busy_ns: int
    #: How late it was.
    lag: Lag
    #: Length of the ready queue when the last turn or poll began,
    ready: int
    #: and its greatest so far.
    ready_high_water: int
    #: Timers that waited when the last poll began,
    timers: int
    #: and the most so far.
    timers_high_water: int
    #: Connections that are open now.
    connections_open: int
    #: Connections that were opened, accepted ones among them.
    connections_made: int
    #: Connections that servers accepted.
    connections_accepted: int
    #: Those that were closed at once: the protocol factory failed, or the
    #: server had stopped.
    connections_refused: int
    #: Connections that an error ended (``connection_lost(exc)``).
    connections_lost: int
    #: Bytes that were received,
    bytes_in: int
    #: and sent.
    bytes_out: int
    #: Bytes that were written and wait for the kernel to take them.
    write_buffer_bytes: int
    #: Threads of the default executor.
    executor_threads: int
    #: Calls that wait for a thread of a thread pool,
    executor_queue: int
    #: those that run now,
    executor_running: int
    #: and those that were made.
    executor_calls: int
    #: How long calls have waited for a thread,
    executor_wait_time_ns: int
    #: and how long they have run.
    executor_run_time_ns: int
    #: Callbacks that took ``slow_callback_duration`` or longer.
    slow_callbacks: int

    @property
    def busy_time_ns(self) -> int:
        """The time in which the loop did not sleep, while it ran."""
        return (
            self.callback_time_ns + self.poll_time_ns + self.gil_wait_time_ns
        )

    @property
    def utilization(self) -> float:
        """The share of its running time that the loop did not sleep."""
        busy = self.busy_time_ns
        whole = busy + self.sleep_time_ns
        return busy / whole if whole else 0.0

    def since(self, earlier: LoopMetrics) -> LoopMetrics:
        """Return what was counted after an earlier answer of the same loop.

        What tells of now, high-water marks among it, is this answer's.
        """
        changes: dict[str, Any] = {"lag": self.lag.since(earlier.lag)}
        for field in dataclasses.fields(self):
            name = field.name
            if name not in _OF_NOW and name != "lag":
                changes[name] = getattr(self, name) - getattr(earlier, name)
        return dataclasses.replace(self, **changes)

    def to_dict(self) -> dict[str, Any]:
        """Return all of it as a dict, for ``json.dumps``."""
        found = dataclasses.asdict(self)
        found["utilization"] = self.utilization
        return found

    @classmethod
    def from_dict(cls, found: dict[str, Any]) -> LoopMetrics:
        """Make one of what ``to_dict`` gave, also by way of JSON.

        Raises ValueError where the lag has another number of counts.
        """
        names = {field.name for field in dataclasses.fields(cls)}
        values = {name: found[name] for name in names}
        lag = found["lag"]
        if len(lag["counts"]) != _LAG_BUCKETS:
            raise ValueError("these counts of lag are another version's")
        values["lag"] = Lag(tuple(lag["counts"]), lag["sum_ns"], lag["max_ns"])
        return cls(**values)


def from_core(raw: dict[str, Any], executor: object) -> LoopMetrics:
    """Make an answer of what the core has counted."""
    return LoopMetrics(
        lag=Lag(
            tuple(raw["lag_counts"]), raw["lag_sum_ns"], raw["lag_max_ns"]
        ),
        busy_ns=raw["away_ns"],
        ready_high_water=raw["ready_most"],
        timers_high_water=raw["timers_most"],
        write_buffer_bytes=raw["bytes_waiting"],
        executor_threads=len(getattr(executor, "_threads", ())),
        executor_queue=max(0, raw["jobs_queued"] - raw["jobs_taken"]),
        executor_running=raw["jobs_running"],
        executor_calls=raw["jobs_done"],
        executor_wait_time_ns=raw["job_wait_ns"],
        executor_run_time_ns=raw["job_run_ns"],
        **{name: raw[name] for name in _SAME_NAMES},
    )


_SAME_NAMES = """
    elapsed_ns turns polls callbacks callback_time_ns poll_time_ns
    sleep_time_ns gil_wait_time_ns ready timers connections_open
    connections_made connections_accepted connections_refused connections_lost
    bytes_in bytes_out slow_callbacks
""".split()


# -- slow callbacks -----------------------------------------------------------


@dataclass(frozen=True, slots=True)
class SlowCallback:
    """A callback that took ``slow_callback_duration`` or longer.

    ``name`` is the qualified name of the task's coroutine, of the function
    or of the transport's protocol class.  ``duration_ns`` is how long it took:
    within a tick of the system's clock (1 to 10 ms), and exact where
    ``slow_callback_duration`` is below 44 ms.

    ``stack`` tells, outermost first, where the task's coroutine waits now,
    after the step that was slow; of what has ended, and of a plain function,
    where it is defined.
    """

    name: str
    duration_ns: int
    stack: tuple[traceback.FrameSummary, ...]


def _code_place(code: CodeType) -> traceback.FrameSummary:
    return traceback.FrameSummary(
        code.co_filename, code.co_firstlineno, code.co_name, lookup_line=False
    )


def _coroutine_stack(coro: Any) -> tuple[traceback.FrameSummary, ...]:
    """Where a coroutine waits, through all that it awaits."""
    found: list[traceback.FrameSummary] = []
    while coro is not None:
        for kind in ("cr", "gi", "ag"):
            code = getattr(coro, f"{kind}_code", None)
            if isinstance(code, types.CodeType):
                break
        else:
            break
        frame: FrameType | None = getattr(coro, f"{kind}_frame")
        if frame is None:
            if not found:
                found.append(_code_place(code))
            break
        found.append(
            traceback.FrameSummary(
                code.co_filename,
                frame.f_lineno or 0,
                code.co_name,
                lookup_line=False,
            )
        )
        coro = getattr(
            coro, "gi_yieldfrom" if kind == "gi" else f"{kind}_await"
        )
    return tuple(found)


def _name_of(subject: Any) -> str:
    # An object that has any attribute answers anything.
    name = getattr(subject, "__qualname__", None)
    return name if isinstance(name, str) else repr(subject)


def describe_slow(subject: Any, duration_ns: int) -> SlowCallback:
    """Tell of a callback by what the loop ran: a handle, a call, a step."""
    try:
        return _describe_slow(subject, duration_ns)
    except Exception:
        # Attributes and repr() are the program's and may raise; the callback
        # was slow all the same, and that is no reason to end the run.
        return SlowCallback(type(subject).__qualname__, duration_ns, ())


def _describe_slow(subject: Any, duration_ns: int) -> SlowCallback:
    if isinstance(subject, asyncio.Handle):
        subject = subject._callback  # type: ignore[attr-defined]
    owner = getattr(subject, "__self__", None)
    if isinstance(owner, asyncio.Task):
        coro: Any = owner.get_coro()
        return SlowCallback(
            _name_of(coro), duration_ns, _coroutine_stack(coro)
        )
    if isinstance(subject, asyncio.BaseTransport):
        subject = type(subject.get_protocol())
    while isinstance(subject, functools.partial):
        subject = subject.func
    code = getattr(subject, "__code__", None)
    return SlowCallback(
        _name_of(subject),
        duration_ns,
        (_code_place(code),) if isinstance(code, types.CodeType) else (),
    )


def begin(loop: Loop) -> None:
    """Remember the slow callbacks of a loop from now on."""
    recent_slow.setdefault(loop, deque(maxlen=_RECENT))
