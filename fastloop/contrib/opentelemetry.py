"""The metrics of loops for OpenTelemetry.

In the program, once its loop runs::

    from fastloop.contrib import opentelemetry
    opentelemetry.instrument()

The instruments are named as OpenTelemetry's conventions name those of
Node.js's event loop (``nodejs.eventloop.delay.p99``), with ``fastloop`` in the
place of ``nodejs``: those of CPython know no event loop so far.
"""

from __future__ import annotations

import os
import time
import weakref
from functools import partial
from typing import TYPE_CHECKING, NamedTuple

try:
    from opentelemetry import metrics as api
except ImportError as _exc:
    raise ImportError(
        "fastloop.contrib.opentelemetry needs opentelemetry-api: "
        "pip install opentelemetry-api"
    ) from _exc

from fastloop import __version__

from . import metered

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from typing import Any

    from fastloop.loop import Loop
    from fastloop.metrics import LoopMetrics

__all__ = ["instrument"]

_BASE = "fastloop.eventloop"
#: The instruments of one collection are read one after the other: all get the
#: values that the first one got.
_ONE_COLLECTION_S = 0.05

_GAUGES: dict[str, tuple[str, Callable[[LoopMetrics], float]]] = {
    "delay.max": ("s", lambda change: change.lag.max_ns / 1e9),
    "delay.mean": ("s", lambda change: change.lag.mean_ns / 1e9),
    "delay.p50": ("s", lambda change: change.lag.percentile_ns(50) / 1e9),
    "delay.p90": ("s", lambda change: change.lag.percentile_ns(90) / 1e9),
    "delay.p99": ("s", lambda change: change.lag.percentile_ns(99) / 1e9),
    "utilization": ("1", lambda change: change.utilization),
}


class _Totals(NamedTuple):
    """What only grows: of a loop, and of earlier loops of its name."""

    busy_ns: int = 0
    sleep_ns: int = 0
    blocked: int = 0


class _Reading:
    """A loop's metrics at a collection, and since the one before.

    before is what earlier loops of the same name have counted.
    """

    def __init__(self, loop: Loop, before: _Totals) -> None:
        self._loop = weakref.ref(loop)
        self._before = before
        #: The process in which the loop got its name.
        self.pid = os.getpid()
        now = loop.metrics()
        #: When, and what was read then.  Replaced as a whole: two exporters
        #: may read at the same time.
        self._last = float("-inf"), now, now

    def loop(self) -> Loop | None:
        """Return the loop, or None when it is closed."""
        loop = self._loop()
        return None if loop is None or loop.is_closed() else loop

    def totals(self) -> _Totals:
        """Return what has been counted, also by a loop that is closed."""
        loop = self._loop()
        return self._add(self._last[1] if loop is None else loop.metrics())

    def _add(self, now: LoopMetrics) -> _Totals:
        busy_ns, sleep_ns, blocked = self._before
        return _Totals(
            busy_ns + now.busy_time_ns,
            sleep_ns + now.sleep_time_ns,
            blocked + now.blocked_callbacks,
        )

    def read(self) -> tuple[_Totals, LoopMetrics] | None:
        """Return both, or None when the loop is closed."""
        loop = self.loop()
        if loop is None:
            return None
        when, now, change = self._last
        if time.monotonic() - when > _ONE_COLLECTION_S:
            now, before = loop.metrics(), now
            change = now.since(before)
            self._last = time.monotonic(), now, change
        return self._add(now), change


class _Loops:
    """The loops that one provider's instruments tell of."""

    def __init__(self, provider: Any) -> None:
        self._readings: dict[str, _Reading] = {}
        meter = api.get_meter("fastloop", __version__, provider)
        for name, (unit, value) in _GAUGES.items():
            meter.create_observable_gauge(
                f"{_BASE}.{name}",
                [partial(self._observe, value)],
                unit,
                f"Event loop {name}.",
            )
        meter.create_observable_counter(
            f"{_BASE}.time",
            [self._observe_time],
            "s",
            "Cumulative duration of time the event loop has been in each "
            "state.",
        )
        meter.create_observable_counter(
            f"{_BASE}.blocked_callbacks",
            [self._observe_blocked],
            "{callback}",
            "Callbacks that the watchdog has reported.",
        )

    def add(self, loop: Loop, name: str) -> None:
        """Tell of a loop from now on; ValueError if its name is taken.

        A forked child may give its parent's names to its own loops.
        """
        before = _Totals()
        reading = self._readings.get(name)
        if reading is not None and reading.pid == os.getpid():
            known = reading.loop()
            if known is loop:
                return
            if known is not None:
                raise ValueError(f"another loop is instrumented as {name!r}")
            before = reading.totals()
        self._readings[name] = _Reading(loop, before)

    def _read(
        self,
    ) -> Iterator[tuple[dict[str, str], _Totals, LoopMetrics]]:
        """Yield each open loop's attributes, totals and last changes."""
        for name, reading in list(self._readings.items()):
            found = reading.read()
            if found is not None:
                yield {f"{_BASE}.name": name}, *found

    def _observe(
        self, value: Callable[[LoopMetrics], float], options: object
    ) -> Iterator[Any]:
        for attributes, _, change in self._read():
            yield api.Observation(value(change), attributes)

    def _observe_time(self, options: object) -> Iterator[Any]:
        for attributes, totals, _ in self._read():
            for state, time_ns in (
                ("active", totals.busy_ns),
                ("idle", totals.sleep_ns),
            ):
                named = {**attributes, f"{_BASE}.state": state}
                yield api.Observation(time_ns / 1e9, named)

    def _observe_blocked(self, options: object) -> Iterator[Any]:
        for attributes, totals, _ in self._read():
            yield api.Observation(totals.blocked, attributes)


#: By provider; by `api` that of the global one, which may be set later.
_of_providers: weakref.WeakKeyDictionary[object, _Loops]
_of_providers = weakref.WeakKeyDictionary()


def instrument(
    loop: Loop | None = None,
    *,
    name: str = "main",
    meter_provider: Any = None,
) -> None:
    """Make observable instruments tell of a loop, by default the running one.

    Turns its metrics on.  ``fastloop.eventloop.delay.*`` and ``.utilization``
    are of the time since the last collection, ``.time`` counts seconds by the
    attribute ``fastloop.eventloop.state``, ``active`` or ``idle``,
    ``.blocked_callbacks`` counts what the watchdog has reported; both go on
    where an earlier loop of the same name ended.  Nothing is observed of a
    loop that is closed.  name is the value of the attribute
    ``fastloop.eventloop.name`` and tells loops of one process apart.
    meter_provider is the global one by default.  Raises TypeError for a loop
    that is not fastloop's and for a name that is no str, ValueError for a name
    that another open loop has, RuntimeError where no loop runs and none is
    given.
    """
    loop = metered(loop, name)
    globally = api.get_meter_provider()
    provider: Any = meter_provider or globally
    if provider is globally and provider not in _of_providers:
        provider = api
    if provider not in _of_providers:
        _of_providers[provider] = _Loops(meter_provider)
    _of_providers[provider].add(loop, name)
