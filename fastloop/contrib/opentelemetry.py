"""The metrics of loops for OpenTelemetry.

In the program, once its loop runs::

    from fastloop.contrib import opentelemetry
    opentelemetry.instrument()

The instruments are named as OpenTelemetry's conventions name those of
Node.js's event loop (``nodejs.eventloop.delay.p99``), with ``fastloop`` in the
place of ``nodejs``: those of CPython know no event loop so far.
"""

from __future__ import annotations

import threading
import time
import weakref
from typing import TYPE_CHECKING

try:
    from opentelemetry import metrics as api
except ImportError as _exc:
    raise ImportError(
        "fastloop.contrib.opentelemetry needs opentelemetry-api: "
        "pip install fastloop[opentelemetry]"
    ) from _exc

from fastloop import __version__

from . import metered

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable
    from typing import Any

    from fastloop.loop import Loop
    from fastloop.metrics import LoopMetrics

__all__ = ["instrument"]

#: The instruments of one collection are asked one after the other: what the
#: first was told the others are told, too.
_ONE_COLLECTION_S = 0.05

_DELAYS: dict[str, Callable[[LoopMetrics], float]] = {
    "max": lambda change: change.lag.max_ns / 1e9,
    "mean": lambda change: change.lag.mean_ns / 1e9,
    "p50": lambda change: change.lag.percentile_ns(50) / 1e9,
    "p90": lambda change: change.lag.percentile_ns(90) / 1e9,
    "p99": lambda change: change.lag.percentile_ns(99) / 1e9,
}


class _Reading:
    """A loop's metrics at a collection, and since the one before."""

    def __init__(self, loop: Loop) -> None:
        self._loop = weakref.ref(loop)
        self._lock = threading.Lock()
        self._now = self._change = loop.metrics()
        self._read_s = float("-inf")

    def read(self) -> tuple[LoopMetrics, LoopMetrics] | None:
        """Return both, or None when the loop is closed."""
        with self._lock:
            loop = self._loop()
            if loop is None or loop.is_closed():
                return None
            if time.monotonic() - self._read_s > _ONE_COLLECTION_S:
                now = loop.metrics()
                self._change = now.since(self._now)
                self._now = now
                self._read_s = time.monotonic()
            return self._now, self._change


def instrument(
    loop: Loop | None = None,
    *,
    meter_provider: Any = None,
    prefix: str = "fastloop",
) -> None:
    """Make observable instruments of a loop, by default the running one.

    Turns its metrics on.  ``fastloop.eventloop.delay.*`` and ``.utilization``
    are of the time since the last collection, ``.time`` counts seconds by the
    attribute ``fastloop.eventloop.state``, ``active`` or ``idle``,
    ``.blocked_callbacks`` counts what the watchdog has reported; nothing is
    observed of a loop that is closed.  prefix replaces ``fastloop`` in all
    names: ``nodejs`` fits dashboards that exist.  meter_provider is the global
    one by default.  Raises TypeError for a loop that is not fastloop's,
    RuntimeError where no loop runs and none is given.
    """
    loop = metered(loop)
    reading = _Reading(loop)
    meter = api.get_meter("fastloop", __version__, meter_provider)
    base = f"{prefix}.eventloop"

    def gauge(
        name: str, unit: str, text: str, value: Callable[[LoopMetrics], float]
    ) -> None:
        def observe(options: object) -> Iterable[Any]:
            found = reading.read()
            if found is not None:
                yield api.Observation(value(found[1]))

        meter.create_observable_gauge(name, [observe], unit, text)

    for name, delay in _DELAYS.items():
        gauge(f"{base}.delay.{name}", "s", f"Event loop {name} delay.", delay)
    gauge(
        f"{base}.utilization",
        "1",
        "Event loop utilization.",
        lambda change: change.utilization,
    )

    def observe_time(options: object) -> Iterable[Any]:
        found = reading.read()
        if found is not None:
            now = found[0]
            state = f"{base}.state"
            yield api.Observation(now.busy_time_ns / 1e9, {state: "active"})
            yield api.Observation(now.sleep_time_ns / 1e9, {state: "idle"})

    meter.create_observable_counter(
        f"{base}.time",
        [observe_time],
        "s",
        "Cumulative duration of time the event loop has been in each state.",
    )

    def observe_blocked(options: object) -> Iterable[Any]:
        found = reading.read()
        if found is not None:
            yield api.Observation(found[0].blocked_callbacks)

    meter.create_observable_counter(
        f"{base}.blocked_callbacks",
        [observe_blocked],
        "{callback}",
        "Callbacks that the watchdog has reported.",
    )
