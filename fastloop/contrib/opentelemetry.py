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
import threading
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

#: The instruments of one collection are read one after the other: all get the
#: values that the first one got.
_ONE_COLLECTION_S = 0.05

_DELAYS: dict[str, Callable[[LoopMetrics], float]] = {
    "max": lambda change: change.lag.max_ns / 1e9,
    "mean": lambda change: change.lag.mean_ns / 1e9,
    "p50": lambda change: change.lag.percentile_ns(50) / 1e9,
    "p90": lambda change: change.lag.percentile_ns(90) / 1e9,
    "p99": lambda change: change.lag.percentile_ns(99) / 1e9,
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
        self.renew_lock()
        self._now = self._change = loop.metrics()
        self._read_s = float("-inf")

    def renew_lock(self) -> None:
        """Make the lock, or make it anew in a forked child."""
        self._lock = threading.Lock()

    def loop(self) -> Loop | None:
        """Return the loop, or None when it is closed."""
        loop = self._loop()
        return None if loop is None or loop.is_closed() else loop

    def totals(self) -> _Totals:
        """Return what has been counted, also by a loop that is closed."""
        loop = self._loop()
        return self._add(self._now if loop is None else loop.metrics())

    def _add(self, now: LoopMetrics) -> _Totals:
        busy_ns, sleep_ns, blocked = self._before
        return _Totals(
            busy_ns + now.busy_time_ns,
            sleep_ns + now.sleep_time_ns,
            blocked + now.blocked_callbacks,
        )

    def read(self) -> tuple[_Totals, LoopMetrics] | None:
        """Return both, or None when the loop is closed."""
        with self._lock:
            loop = self.loop()
            if loop is None:
                return None
            if time.monotonic() - self._read_s > _ONE_COLLECTION_S:
                now = loop.metrics()
                self._change = now.since(self._now)
                self._now = now
                self._read_s = time.monotonic()
            return self._add(self._now), self._change


class _Loops:
    """The loops that one provider's instruments of one prefix tell of."""

    def __init__(self, provider: Any, prefix: str) -> None:
        self._readings: dict[str, _Reading] = {}
        self._base = base = f"{prefix}.eventloop"
        meter = api.get_meter("fastloop", __version__, provider)
        for name, value in _DELAYS.items():
            meter.create_observable_gauge(
                f"{base}.delay.{name}",
                [partial(self._observe, value)],
                "s",
                f"Event loop {name} delay.",
            )
        meter.create_observable_gauge(
            f"{base}.utilization",
            [partial(self._observe, lambda change: change.utilization)],
            "1",
            "Event loop utilization.",
        )
        meter.create_observable_counter(
            f"{base}.time",
            [self._observe_time],
            "s",
            "Cumulative duration of time the event loop has been in each "
            "state.",
        )
        meter.create_observable_counter(
            f"{base}.blocked_callbacks",
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

    def renew_locks(self) -> None:
        """Make the locks of the readings anew, in a forked child."""
        for reading in self._readings.values():
            reading.renew_lock()

    def _read(
        self,
    ) -> Iterator[tuple[dict[str, str], _Totals, LoopMetrics]]:
        """Yield each open loop's attributes, totals and last changes."""
        for name, reading in list(self._readings.items()):
            found = reading.read()
            if found is not None:
                yield {f"{self._base}.name": name}, *found

    def _observe(
        self, value: Callable[[LoopMetrics], float], options: object
    ) -> Iterator[Any]:
        for attributes, _, change in self._read():
            yield api.Observation(value(change), attributes)

    def _observe_time(self, options: object) -> Iterator[Any]:
        state = f"{self._base}.state"
        for attributes, totals, _ in self._read():
            for name, time_ns in (
                ("active", totals.busy_ns),
                ("idle", totals.sleep_ns),
            ):
                yield api.Observation(
                    time_ns / 1e9, {**attributes, state: name}
                )

    def _observe_blocked(self, options: object) -> Iterator[Any]:
        for attributes, totals, _ in self._read():
            yield api.Observation(totals.blocked, attributes)


#: By prefix: a meter takes the callbacks of an instrument only once.
_of_global: dict[str, _Loops] = {}
_of_others: weakref.WeakKeyDictionary[object, dict[str, _Loops]]
_of_others = weakref.WeakKeyDictionary()
_lock = threading.Lock()


def instrument(
    loop: Loop | None = None,
    *,
    name: str = "main",
    meter_provider: Any = None,
    prefix: str = "fastloop",
) -> None:
    """Make observable instruments tell of a loop, by default the running one.

    Turns its metrics on.  ``fastloop.eventloop.delay.*`` and ``.utilization``
    are of the time since the last collection, ``.time`` counts seconds by the
    attribute ``fastloop.eventloop.state``, ``active`` or ``idle``,
    ``.blocked_callbacks`` counts what the watchdog has reported; both go on
    where an earlier loop of the same name ended.  Nothing is observed of a
    loop that is closed.  name is the value of the attribute
    ``fastloop.eventloop.name`` and tells loops of one process apart.  prefix
    replaces ``fastloop`` in all names: ``nodejs`` fits dashboards that exist.
    meter_provider is the global one by default.  Raises TypeError for a loop
    that is not fastloop's and for a name that is no str, ValueError for a name
    that another open loop has, RuntimeError where no loop runs and none is
    given.
    """
    loop = metered(loop, name)
    with _lock:
        globally = api.get_meter_provider()
        provider = globally if meter_provider is None else meter_provider
        if provider is globally and prefix not in _of_others.get(provider, ()):
            instrumented = _of_global
        else:  # also a provider that has become the global one since
            instrumented = _of_others.setdefault(provider, {})
        if prefix not in instrumented:
            instrumented[prefix] = _Loops(meter_provider, prefix)
        instrumented[prefix].add(loop, name)


def _renew_locks() -> None:
    """In a forked child: a thread of the parent may have had them."""
    global _lock
    _lock = threading.Lock()
    for instrumented in (_of_global, *_of_others.values()):
        for loops in instrumented.values():
            loops.renew_locks()


os.register_at_fork(after_in_child=_renew_locks)
