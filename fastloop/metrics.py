"""The immutable objects that ``loop.metrics()`` returns.

The core counts; ``src/core/metrics.h`` says what exactly, and what it costs.
This module names the counts and computes what can be derived from them.
"""

from __future__ import annotations

import asyncio
import dataclasses
import functools
import traceback
import types
from dataclasses import dataclass

TYPE_CHECKING = False
if TYPE_CHECKING:
    from types import CodeType, FrameType
    from typing import Any

__all__ = ["BlockedCallback", "Lag", "LoopMetrics", "SlowCallback"]


@dataclass(frozen=True, slots=True)
class Lag:
    """A histogram of how late the loop was.

    One value is the time from the end of a poll to the beginning of the next.
    During that time the loop ran callbacks or waited for the GIL, and did not
    poll.  An event that became ready meanwhile was queued late, by at most
    that time.

    ``counts[i]`` is the number of values of at most ``bounds_ns[i]`` and above
    the bound before it.  The last of ``counts`` is the number of values above
    every bound.  ``sum_ns`` and ``max_ns`` cover all values.  Times are in
    nanoseconds.
    """

    counts: tuple[int, ...]
    sum_ns: int
    max_ns: int
    bounds_ns: tuple[int, ...] = tuple(1024 << at for at in range(26))

    @property
    def count(self) -> int:
        """The number of values: one for each poll."""
        return sum(self.counts)

    @property
    def mean_ns(self) -> float:
        """The mean in nanoseconds; 0.0 without values."""
        count = self.count
        return self.sum_ns / count if count else 0.0

    def percentile_ns(self, percent: float) -> float:
        """Estimate a percentile, in nanoseconds.

        Values are assumed to be spread evenly within their bucket.  Each
        bucket is twice as wide as the one before.  Returns 0.0 without values.
        Raises ValueError for a percentage that is not within 0 and 100.
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
        """Return the histogram of the values added after an earlier one.

        Its ``max_ns`` is an upper limit: the bound of its highest bucket that
        has values, or the maximum of all values if that is less.  The core
        stores no exact maximum for a part of the time.
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


#: Fields that describe the present, not the sum since metrics were enabled.
_OF_NOW = frozenset(
    """
    busy_ns ready ready_high_water timers timers_high_water connections_open
    write_buffer_bytes executor_threads executor_queue executor_running
    """.split()
)


@dataclass(frozen=True, slots=True, kw_only=True)
class LoopMetrics:
    """What a loop has done since ``enable_metrics()``, and its present state.

    Times are in nanoseconds of ``time.monotonic()``.  Those of the loop
    include the activity that has not ended yet.  Connections are those of
    stream transports.  Bytes are those of stream transports, TLS bytes
    encrypted, and the payload of datagram transports.  Bytes moved through
    pipes, by ``loop.sock_recv()`` and the other ``sock_*`` methods, and by
    ``sendfile`` of a plain connection, do not count.
    """

    #: Time since metrics were enabled.
    elapsed_ns: int
    #: Iterations of the loop.
    iterations: int
    #: System calls that polled for events; an iteration may skip the poll.
    polls: int
    #: Callbacks, events and task steps that were run.
    callbacks: int
    #: Time in callbacks, and in all that the loop does between two polls.
    callback_time_ns: int
    #: Time in polls that do not wait, because callbacks are ready.
    poll_time_ns: int
    #: Time in polls that wait.
    sleep_time_ns: int
    #: Time from the end of a poll that released the GIL until the thread had
    #: it again.
    gil_wait_time_ns: int
    #: Time since the loop last polled; 0 while it polls.
    busy_ns: int
    #: How late the loop was.
    lag: Lag
    #: Length of the ready queue when the last iteration or poll began.
    ready: int
    #: The greatest such length so far.
    ready_high_water: int
    #: Timers that were scheduled when the last poll began.
    timers: int
    #: The most so far.
    timers_high_water: int
    #: Connections that are open now.
    connections_open: int
    #: Connections that were opened, including accepted ones.
    connections_made: int
    #: Connections that servers accepted.
    connections_accepted: int
    #: Accepted connections that were closed at once, because the protocol
    #: factory failed (of a server without TLS) or the server had stopped.
    connections_refused: int
    #: Connections that an error ended (``connection_lost(exc)``).
    connections_lost: int
    #: Bytes that were received.
    bytes_in: int
    #: Bytes that were sent.
    bytes_out: int
    #: Bytes that were written but that the kernel has not accepted yet.  Over
    #: TLS, those that wait in the plain transport: 64 KiB or so.
    write_buffer_bytes: int
    #: Threads of the default executor.
    executor_threads: int
    #: Calls by ``run_in_executor`` that wait for a thread of a thread pool.
    executor_queue: int
    #: Calls that run in a thread now.
    executor_running: int
    #: Calls that have ended.
    executor_calls: int
    #: Total time that calls have waited for a thread.
    executor_wait_time_ns: int
    #: Total time that calls have run.
    executor_run_time_ns: int
    #: Callbacks that took ``slow_callback_duration`` or longer.
    slow_callbacks: int
    #: Callbacks that the watchdog has reported.
    blocked_callbacks: int

    @property
    def busy_time_ns(self) -> int:
        """The time in which the loop ran and did not sleep, in nanoseconds."""
        return (
            self.callback_time_ns + self.poll_time_ns + self.gil_wait_time_ns
        )

    @property
    def utilization(self) -> float:
        """The fraction of its running time that the loop did not sleep."""
        busy = self.busy_time_ns
        whole = busy + self.sleep_time_ns
        return busy / whole if whole else 0.0

    def since(self, earlier: LoopMetrics) -> LoopMetrics:
        """Return what was counted after an earlier result of the same loop.

        Fields that describe the present, and high-water marks, are unchanged.
        """
        changes: dict[str, Any] = {"lag": self.lag.since(earlier.lag)}
        for field in dataclasses.fields(self):
            name = field.name
            if name not in _OF_NOW and name != "lag":
                changes[name] = getattr(self, name) - getattr(earlier, name)
        return dataclasses.replace(self, **changes)

    def to_dict(self) -> dict[str, Any]:
        """Return all fields as a dict that ``json.dumps`` accepts."""
        return dataclasses.asdict(self) | {"utilization": self.utilization}

    @classmethod
    def from_dict(cls, found: dict[str, Any]) -> LoopMetrics:
        """Make an object from the result of ``to_dict``, also after JSON.

        Raises KeyError for a missing field; ValueError, TypeError or
        OverflowError for one that is no number.
        """
        names = {field.name for field in dataclasses.fields(cls)} - {"lag"}
        lag = found["lag"]
        counts = tuple(map(int, lag["counts"]))
        return cls(
            lag=Lag(counts, int(lag["sum_ns"]), int(lag["max_ns"])),
            **{name: int(found[name]) for name in names},
        )


def from_core(
    values: list[int], executor: object, blocked: int
) -> LoopMetrics:
    """Make the result of ``loop.metrics()`` from the core's counts.

    ``blocked`` is the watchdog's count.
    """
    counts = dict(zip(_CORE_NAMES, values))  # noqa: B905
    del counts["outside_time_ns"]
    return LoopMetrics(
        lag=Lag(
            tuple(values[len(_CORE_NAMES) :]),
            counts.pop("lag_sum_ns"),
            counts.pop("lag_max_ns"),
        ),
        executor_threads=len(getattr(executor, "_threads", ())),
        executor_queue=max(
            0, counts.pop("executor_queued") - counts.pop("executor_taken")
        ),
        blocked_callbacks=blocked,
        **counts,
    )


#: What the core's list begins with: two times, the time of each state, and the
#: counters, as in ``src/core/metrics.h``.  The histogram of lags follows.
_CORE_NAMES = """
    elapsed_ns busy_ns
    outside_time_ns callback_time_ns poll_time_ns sleep_time_ns
    gil_wait_time_ns
    iterations polls callbacks lag_sum_ns lag_max_ns slow_callbacks
    ready ready_high_water timers timers_high_water
    connections_open connections_made connections_accepted connections_refused
    connections_lost bytes_in bytes_out write_buffer_bytes
    executor_queued executor_taken executor_running executor_calls
    executor_wait_time_ns executor_run_time_ns
""".split()


#: How many reports of each kind a loop keeps, for ``fastloop top``.
RECENT = 16


@dataclass(frozen=True, slots=True)
class BlockedCallback:
    """A callback that ran for the watchdog's limit, as seen while it ran.

    ``name`` is the qualified name of the task's coroutine or of the function.
    ``duration_ns`` is how long it had run in nanoseconds, to a tick of the
    system's clock (1 to 10 ms).  ``gc_time_ns`` is how much of that the
    garbage collector took.

    ``stack`` is where the callback was, outermost first, without the loop's
    own frames and at most 40 frames.  It is empty if the callback ended
    before the watchdog could look, because C code kept the GIL, and if the
    callback is C code.
    """

    name: str
    duration_ns: int
    gc_time_ns: int
    stack: tuple[traceback.FrameSummary, ...]


@dataclass(frozen=True, slots=True)
class SlowCallback:
    """A callback that took ``slow_callback_duration`` or longer.

    ``name`` is the qualified name of the task's coroutine, of the function
    or of the transport's protocol class.  ``duration_ns`` is how long it took
    in nanoseconds.  It is accurate to a tick of the system's clock (1 to 10
    ms), and exact if ``slow_callback_duration`` is below 44 ms.

    ``stack`` is where the task's coroutine waits now, after the slow step,
    outermost first.  For a coroutine that has ended, and for a plain function,
    it is where that is defined.

    ``blocked`` is what the watchdog reported of it while it ran, or None.
    """

    name: str
    duration_ns: int
    stack: tuple[traceback.FrameSummary, ...]
    blocked: BlockedCallback | None = None


def place(code: CodeType, line: int | None) -> traceback.FrameSummary:
    """Return a line of code; its text is read when it is needed."""
    return traceback.FrameSummary(
        code.co_filename, line or 0, code.co_name, lookup_line=False
    )


def _coroutine_stack(coro: Any) -> tuple[traceback.FrameSummary, ...]:
    """Return where a coroutine waits, following what it awaits."""
    found: list[traceback.FrameSummary] = []
    while coro is not None:
        for kind in ("cr", "gi", "ag"):
            code = getattr(coro, f"{kind}_code", None)
            if isinstance(code, types.CodeType):
                break
        else:
            break
        frame: FrameType | None = getattr(coro, f"{kind}_frame")
        if frame is None and found:
            break
        line = frame.f_lineno if frame else code.co_firstlineno
        found.append(place(code, line))
        more = "gi_yieldfrom" if kind == "gi" else f"{kind}_await"
        coro = getattr(coro, more) if frame else None
    return tuple(found)


def name_of(subject: Any) -> str:
    """Return the qualified name of a function or coroutine, or its repr."""
    # Mocks have every attribute: accept only a str.
    name = getattr(subject, "__qualname__", None)
    return name if isinstance(name, str) else repr(subject)


def describe_slow(subject: Any, duration_ns: int) -> SlowCallback:
    """Describe a slow callback by what the loop ran: handle, call or step."""
    try:
        return _describe_slow(subject, duration_ns)
    except Exception:
        # Attributes and repr() are the program's and may raise.  The callback
        # was slow all the same, and reporting it must not end the run.
        return SlowCallback(type(subject).__qualname__, duration_ns, ())


def _describe_slow(subject: Any, duration_ns: int) -> SlowCallback:
    if isinstance(subject, asyncio.Handle):
        # A cancelled handle has no callback any more.
        subject = subject._callback or subject  # type: ignore[attr-defined]
    owner = getattr(subject, "__self__", None)
    if isinstance(owner, asyncio.Task):
        coro: Any = owner.get_coro()
        return SlowCallback(name_of(coro), duration_ns, _coroutine_stack(coro))
    if isinstance(subject, asyncio.BaseTransport):
        subject = type(subject.get_protocol())
    while isinstance(subject, functools.partial):
        subject = subject.func
    code = getattr(subject, "__code__", None)
    stack: tuple[traceback.FrameSummary, ...] = ()
    if isinstance(code, types.CodeType):
        stack = (place(code, code.co_firstlineno),)
    return SlowCallback(name_of(subject), duration_ns, stack)
