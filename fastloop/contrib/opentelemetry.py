"""Metrics, spans and errors of loops for OpenTelemetry.

``FASTLOOP_OTEL=1`` in the environment instruments each loop.  Or, in the
program, once its loop runs::

    from fastloop.contrib import opentelemetry
    opentelemetry.instrument()

The instruments have the names of Node.js's event loop in OpenTelemetry's
conventions, as those of CPython name no event loop yet.
"""

from __future__ import annotations

import contextlib
import os
import time
import traceback
from collections import Counter, defaultdict
from functools import partial
from typing import TYPE_CHECKING
from weakref import WeakKeyDictionary as ByObject

try:
    from opentelemetry import metrics as api
    from opentelemetry import trace
    from opentelemetry.context import Context
except ImportError as _exc:
    raise ImportError(
        "fastloop.contrib.opentelemetry needs opentelemetry-api: "
        "pip install opentelemetry-api"
    ) from _exc

from fastloop import __version__
from fastloop._loop._environment import variable
from fastloop.metrics import BlockedCallback
from fastloop.observe._observed import NamedLoops, lock

from . import metered

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from typing import Any

    from fastloop.loop import Loop
    from fastloop.metrics import LoopMetrics, SlowCallback

__all__ = ["instrument"]

_BASE = "fastloop.eventloop"

#: The watchdog's limit where the program has set none.
_WATCHDOG_S = 0.5
#: The least time that the gauges describe, where it has passed.
_WINDOW_NS = 30_000_000_000

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
        self.past: ByObject[Loop, list[LoopMetrics]] = ByObject()
        #: Exceptions by process, loop and type.  They are counted here and
        #: not by OpenTelemetry, because a destructor may report one while its
        #: thread has a lock of OpenTelemetry's.
        self.exceptions: Counter[tuple[int, str, str]] = Counter()
        meter = api.get_meter("fastloop", __version__, provider)
        for name, (unit, value) in _GAUGES.items():
            seen, text = [partial(self._gauge, value)], f"Event loop {name}."
            meter.create_observable_gauge(f"{_BASE}.{name}", seen, unit, text)
        count = meter.create_observable_counter
        active = self._counter(lambda now: now.busy_time_ns / 1e9, "active")
        idle = self._counter(lambda now: now.sleep_time_ns / 1e9, "idle")
        count(
            f"{_BASE}.time",
            [active, idle],
            "s",
            "Cumulative duration of time the event loop has been in each "
            "state.",
        )
        blocked = self._counter(lambda now: now.blocked_callbacks)
        text = "Callbacks that the watchdog has reported."
        count(f"{_BASE}.blocked_callbacks", [blocked], "{callback}", text)
        text = "Exceptions that the loop's exception handler got."
        raised = [self._observe_exceptions]
        count(f"{_BASE}.unhandled_exceptions", raised, "{exception}", text)

    def _gauge(
        self, value: Callable[[LoopMetrics], float], options: object
    ) -> Iterator[Any]:
        """Observe a value of the last 30 to 60 seconds.

        Not since the last collection: that may be another reader's.
        """
        for name, loop in self.loops:
            now, past = loop.metrics(), self.past[loop]
            if now.elapsed_ns - past[1].elapsed_ns >= _WINDOW_NS:
                past[:] = past[1], now
            seen = value(now.since(past[0]))
            yield api.Observation(seen, {f"{_BASE}.name": name})

    def _counter(
        self, value: Callable[[LoopMetrics], float], state: str = ""
    ) -> Callable[[object], Iterator[Any]]:
        """Return what observes a value's sum over all loops of a name."""
        last: ByObject[Loop, dict[str, float]] = ByObject()
        # By process, too: a forked child counts from 0.
        sums: dict[tuple[int, str], float] = defaultdict(int)
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

    def _observe_exceptions(self, options: object) -> Iterator[Any]:
        for (pid, name, kind), count in list(self.exceptions.items()):
            if pid == os.getpid():
                attributes = {f"{_BASE}.name": name, "error.type": kind}
                yield api.Observation(count, attributes)


#: By provider; by `api` that of the global one, which may be set later.
_of_providers: ByObject[object, _Instruments] = ByObject()


def _make_span(
    tracer: Any, name: str, report: SlowCallback | BlockedCallback
) -> None:
    """Send the span of a callback that ends now."""
    end_ns = time.time_ns()
    blocked = report if isinstance(report, BlockedCallback) else report.blocked
    stack, at = report.stack, report.stack[:1]  # the callback's own line
    if blocked and blocked.stack:
        stack, at = blocked.stack, blocked.stack[-1:]  # the one that blocks
    attributes: dict[str, Any] = {
        f"{_BASE}.name": name,
        "fastloop.callback": report.name,
        "code.stacktrace": "".join(traceback.format_list([*stack])),
    }
    for frame in at:
        attributes["code.function.name"] = frame.name
        attributes["code.file.path"] = frame.filename
        attributes["code.line.number"] = frame.lineno
    tracer.start_span(
        f"fastloop.{'blocked' if blocked is report else 'slow'}_callback",
        Context(),  # of no trace that happens to be current
        attributes={key: value for key, value in attributes.items() if value},
        start_time=end_ns - report.duration_ns,
    ).end(end_ns)


def _count(
    exceptions: Counter[Any], name: str, context: dict[str, Any]
) -> None:
    """Count what reaches the exception handler of the loop of a name."""
    if (exc := context.get("exception")) is not None:
        kind = f"{type(exc).__module__}.{type(exc).__qualname__}"
        exceptions[os.getpid(), name, kind.removeprefix("builtins.")] += 1


def instrument(
    loop: Loop | None = None,
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
    then.  The thread that found it makes the span, which for a slow callback
    is the loop's: an exporter that takes long is for a BatchSpanProcessor.

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
    present = api.get_meter_provider()  # it may run any code
    with lock:
        # One key for a meter, because it ignores a second set of instruments.
        key = meter_provider or present
        if key is present and key not in _of_providers:
            key = api
        if key not in _of_providers:
            _of_providers[key] = _Instruments(meter_provider)
        found = _of_providers[key]
        # First: a reader may collect as soon as the loop has a name.
        found.past.setdefault(loop, [loop.metrics()] * 2)
        if name is None:
            name = found.loops.add_unnamed(loop)
        else:
            found.loops.add(loop, name)
    tracer = trace.get_tracer("fastloop", __version__, tracer_provider)
    loop._on_report = partial(_make_span, tracer, name)
    loop._on_exception = partial(_count, found.exceptions, name)
    if loop._fastloop_watchdog is None and variable("FASTLOOP_WATCHDOG", "1"):
        with contextlib.suppress(RuntimeError):  # it cannot run here
            loop.enable_metrics(watchdog_s=_WATCHDOG_S)
