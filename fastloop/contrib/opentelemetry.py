"""Metrics, spans and errors of loops for OpenTelemetry.

``FASTLOOP_OTEL=1`` in the environment instruments each loop.  Or, in the
program, once its loop runs::

    from fastloop.contrib import opentelemetry
    opentelemetry.instrument()

The instruments are named as OpenTelemetry's conventions name those of
Node.js's event loop (``nodejs.eventloop.delay.p99``), with ``fastloop`` in the
place of ``nodejs``: those of CPython name no event loop yet.
"""

from __future__ import annotations

import _thread
import asyncio
import atexit
import collections
import contextlib
import logging
import os
import sys
import time
import traceback
import weakref
from functools import partial
from queue import SimpleQueue
from typing import TYPE_CHECKING

try:
    from opentelemetry import metrics as api
    from opentelemetry import trace
except ImportError as _exc:
    raise ImportError(
        "fastloop.contrib.opentelemetry needs opentelemetry-api: "
        "pip install opentelemetry-api"
    ) from _exc

from fastloop import __version__
from fastloop._environment import variable
from fastloop.metrics import BlockedCallback

from . import NamedLoops, metered

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from typing import Any

    from fastloop.metrics import LoopMetrics, SlowCallback
    from fastloop.observe._observed import ObservedLoop

__all__ = ["instrument"]

_BASE = "fastloop.eventloop"

#: The watchdog's limit where the program has set none.
_WATCHDOG_S = 0.5
#: The least time that the gauges describe, where it has passed.
_WINDOW_NS = 30_000_000_000
#: How many reports may wait for OpenTelemetry.
_MOST_WAITING = 1000
#: How long a call graph's text may be.
_MOST_TEXT = 10_000
#: How many tasks it may name: asyncio shows each way to a task, and with each
#: layer of a graph of tasks there may be twice as many.
_MOST_AWAITING = 200
#: Seconds that a fork waits for a call, and the end of the process for the
#: last reports.
_WAIT_S = 1.0

_GAUGES: dict[str, tuple[str, Callable[[LoopMetrics], float]]] = {
    "delay.max": ("s", lambda change: change.lag.max_ns / 1e9),
    "delay.mean": ("s", lambda change: change.lag.mean_ns / 1e9),
    "delay.p50": ("s", lambda change: change.lag.percentile_ns(50) / 1e9),
    "delay.p90": ("s", lambda change: change.lag.percentile_ns(90) / 1e9),
    "delay.p99": ("s", lambda change: change.lag.percentile_ns(99) / 1e9),
    "utilization": ("1", lambda change: change.utilization),
}


class _Instruments:
    """One provider's instruments, and the loops that they tell of."""

    def __init__(self, provider: Any) -> None:
        self.loops = NamedLoops()
        #: Two earlier metrics of each loop, the older one first.
        self.past: weakref.WeakKeyDictionary[ObservedLoop, list[LoopMetrics]]
        self.past = weakref.WeakKeyDictionary()
        meter = api.get_meter("fastloop", __version__, provider)
        for name, (unit, value) in _GAUGES.items():
            meter.create_observable_gauge(
                f"{_BASE}.{name}",
                [self._gauge(value)],
                unit,
                f"Event loop {name}.",
            )
        meter.create_observable_counter(
            f"{_BASE}.time",
            [
                self._counter(lambda now: now.busy_time_ns / 1e9, "active"),
                self._counter(lambda now: now.sleep_time_ns / 1e9, "idle"),
            ],
            "s",
            "Cumulative duration of time the event loop has been in each "
            "state.",
        )
        meter.create_observable_counter(
            f"{_BASE}.blocked_callbacks",
            [self._counter(lambda now: now.blocked_callbacks)],
            "{callback}",
            "Callbacks that the watchdog has reported.",
        )
        self.exceptions = meter.create_counter(
            f"{_BASE}.unhandled_exceptions",
            "{exception}",
            "Exceptions that the loop's exception handler got.",
        )

    def _gauge(
        self, value: Callable[[LoopMetrics], float]
    ) -> Callable[[object], Iterator[Any]]:
        """Return what observes a value of the last 30 to 60 seconds.

        Not since the last collection: that may be another reader's.
        """

        def observe(options: object) -> Iterator[Any]:
            for name, loop in self.loops:
                now, past = loop.metrics(), self.past[loop]
                if now.elapsed_ns - past[1].elapsed_ns >= _WINDOW_NS:
                    past[:] = past[1], now
                seen = value(now.since(past[0]))
                yield api.Observation(seen, {f"{_BASE}.name": name})

        return observe

    def _counter(
        self, value: Callable[[LoopMetrics], float], state: str = ""
    ) -> Callable[[object], Iterator[Any]]:
        """Return what observes a value's sum over all loops of a name."""
        last: weakref.WeakKeyDictionary[ObservedLoop, dict[str, float]]
        last = weakref.WeakKeyDictionary()
        # By process, too: a forked child counts from 0.
        sums: dict[tuple[int, str], float] = collections.defaultdict(int)
        more = {f"{_BASE}.state": state} if state else {}

        def observe(options: object) -> Iterator[Any]:
            for name, loop in self.loops:
                by_name = last.setdefault(loop, {})  # it may have two names
                now = value(loop.metrics())
                sums[os.getpid(), name] += now - by_name.get(name, 0)
                by_name[name] = now
                yield api.Observation(
                    sums[os.getpid(), name],
                    {f"{_BASE}.name": name, **more},
                )

        return observe


#: By provider; by `api` that of the global one, which may be set later.
_of_providers: weakref.WeakKeyDictionary[object, _Instruments]
_of_providers = weakref.WeakKeyDictionary()


# -- reports ------------------------------------------------------------------


#: Calls that wait for the thread that makes them; None ends it.  Neither the
#: queue nor `_thread` takes a lock of Python code, because a destructor may
#: report an exception, at any time and in any thread.
_calls: SimpleQueue[Callable[[], object] | None] = SimpleQueue()
_has_thread = False
#: Held while a call is made.  A fork waits for it: a child would never get a
#: lock that the thread has, such as that of a module which it imports.
_calling = _thread.RLock()
#: Whether reports were dropped since the queue was last empty.
_has_warned = False
#: Whether daemon threads may start here: not in some subinterpreters.
_daemon_threads_allowed = getattr(
    _thread, "daemon_threads_allowed", lambda: True
)


def _send(call: Callable[..., object], *args: object) -> None:
    """Call OpenTelemetry in a thread of its own: no loop waits for it."""
    global _has_thread, _has_warned
    if _calls.qsize() < _MOST_WAITING:
        _has_warned = _has_warned and not _calls.empty()
        _calls.put(partial(call, *args))
    elif not _has_warned:
        _has_warned = True  # first: a destructor may report meanwhile
        _warn("takes no reports: they are dropped until it does")
    if not _has_thread and _daemon_threads_allowed():
        with contextlib.suppress(RuntimeError):  # too many threads
            _thread.start_new_thread(_make_calls, ())
            _has_thread = True


def _make_calls() -> None:
    while (call := _calls.get()) is not None:
        with _calling:
            try:
                call()
            except BaseException as exc:
                _warn(f"cannot take a report: {exc!r}")


def _warn(what: str) -> None:
    logging.getLogger("asyncio").warning("OpenTelemetry %s", what)


def _before_fork() -> None:
    _calling.acquire(timeout=_WAIT_S)  # an exporter may hang


def _after_fork() -> None:
    with contextlib.suppress(RuntimeError):  # it did hang
        _calling.release()


def _forget_parents() -> None:
    global _calls, _calling, _has_thread
    _calls, _calling, _has_thread = SimpleQueue(), _thread.RLock(), False


if hasattr(os, "register_at_fork"):  # not on Windows
    os.register_at_fork(
        before=_before_fork,
        after_in_parent=_after_fork,
        after_in_child=_forget_parents,
    )


@atexit.register
def _end() -> None:
    """Make the calls that wait, and end the thread, unless one hangs.

    A subinterpreter up to 3.13 must have no other thread when it ends.
    """
    global _has_thread
    if not _has_thread:
        return
    _has_thread = False
    threads, until_s = _thread._count(), time.monotonic() + _WAIT_S
    _calls.put(None)
    while _thread._count() >= threads and time.monotonic() < until_s:
        time.sleep(0.001)


def _call_graph(callback: object) -> str:
    """Return the text of a task and of those that await it, from 3.14 on.

    callback is the task, or its step.
    """
    text = ""
    # A coroutine that has ended, perhaps just now, has no frame.
    with contextlib.suppress(Exception):
        task = getattr(callback, "__self__", callback)
        if sys.version_info >= (3, 14) and isinstance(task, asyncio.Task):
            if _is_small(task):
                text = asyncio.format_call_graph(task)
    return text[:_MOST_TEXT]


def _is_small(task: Any) -> bool:
    """Whether the call graph of a task has few lines."""
    found = [task]
    for one in found:
        found += one._asyncio_awaited_by or ()
        if len(found) > _MOST_AWAITING:
            return False
    return True


def _make_span(
    tracer: Any,
    name: str,
    end_ns: int,
    report: SlowCallback | BlockedCallback,
    graph: str,
) -> None:
    blocked = report if isinstance(report, BlockedCallback) else report.blocked
    stack, at = report.stack, report.stack[:1]  # the callback's own line
    if blocked and blocked.stack:
        stack, at = blocked.stack, blocked.stack[-1:]  # the one that blocks
    attributes: dict[str, Any] = {
        f"{_BASE}.name": name,
        "fastloop.callback": report.name,
        "fastloop.call_graph": graph,
        "code.stacktrace": "".join(traceback.format_list([*stack])),
    }
    for frame in at:
        attributes["code.function.name"] = frame.name
        attributes["code.file.path"] = frame.filename
        attributes["code.line.number"] = frame.lineno
    tracer.start_span(
        f"fastloop.{'blocked' if blocked is report else 'slow'}_callback",
        attributes={key: value for key, value in attributes.items() if value},
        start_time=end_ns - report.duration_ns,
    ).end(end_ns)


def _send_reports(
    loop: ObservedLoop, name: str, tracer: Any, exceptions: Any
) -> None:
    """Send a loop's reports from now on, instead of those to another name."""
    reference = weakref.ref(loop)  # the loop has the functions: no cycle
    # The program's own, if it has set one, or what an earlier call replaced.
    before = vars(loop).get("call_exception_handler")
    before = getattr(before, "replaced", before)

    def send_span(
        report: SlowCallback | BlockedCallback, callback: object
    ) -> None:
        end_ns, graph = time.time_ns(), _call_graph(callback)
        _send(_make_span, tracer, name, end_ns, report, graph)

    def call_exception_handler(context: dict[str, Any]) -> None:
        if (exc := context.get("exception")) is not None:
            kind = f"{type(exc).__module__}.{type(exc).__qualname__}"
            kind = kind.removeprefix("builtins.")
            attributes = {f"{_BASE}.name": name, "error.type": kind}
            _send(exceptions.add, 1, attributes)
        if before is not None:
            before(context)
        elif (loop := reference()) is not None:
            type(loop).call_exception_handler(loop, context)

    call_exception_handler.replaced = before  # type: ignore[attr-defined]
    loop._on_report = send_span
    # An attribute of this loop: without it nothing is counted or called.
    loop.call_exception_handler = call_exception_handler  # type: ignore


def instrument(
    loop: ObservedLoop | None = None,
    *,
    name: str | None = None,
    meter_provider: Any = None,
    tracer_provider: Any = None,
) -> None:
    """Tell OpenTelemetry of a loop, by default of the running one.

    ``FASTLOOP_OTEL=1`` calls this for each loop.  The providers are by default
    the global ones, which the program may set later.

    Turns the loop's metrics on, and starts its watchdog with a limit of 0.5
    seconds, unless it runs, cannot run, or FASTLOOP_WATCHDOG says no.  Each
    slow callback is a span ``fastloop.slow_callback``, and each one that the
    watchdog reports a span ``fastloop.blocked_callback`` of the time until
    then.  Spans and exceptions reach the providers in a thread of their own,
    so no loop waits for an exporter that hangs.  asyncio's log tells of a
    provider that fails, and of reports that are dropped because a thousand
    wait.

    name is the value of the attribute ``fastloop.eventloop.name``, which tells
    loops of one process apart: by default the one that the loop has, or else
    ``main``, or ``main-2`` and so on while other open loops have that.
    Counters go on where an earlier loop of the same name was collected last.
    Raises TypeError for a loop that is not fastloop's and for a name that is
    no str, ValueError for a name that another open loop has, RuntimeError
    where no loop runs and none is given.
    """
    loop = metered(loop, "main" if name is None else name)
    if loop is None:
        return
    key = meter_provider or api
    if key not in _of_providers:
        _of_providers[key] = _Instruments(meter_provider)
    found = _of_providers[key]
    # First: a reader may collect in its thread as soon as the loop has a name.
    found.past.setdefault(loop, [loop.metrics()] * 2)
    if name is None:
        name = found.loops.add_unnamed(loop)
    else:
        found.loops.add(loop, name)
    tracer = trace.get_tracer("fastloop", __version__, tracer_provider)
    _send_reports(loop, name, tracer, found.exceptions)
    if loop._watchdog is None and variable("FASTLOOP_WATCHDOG", "1"):
        with contextlib.suppress(RuntimeError):  # it cannot run here
            loop.enable_metrics(watchdog_s=_WATCHDOG_S)
