"""The metrics of loops for Prometheus, by way of ``prometheus_client``.

In the program, once its loop runs::

    from fastloop.contrib import prometheus
    prometheus.register()

From then on the library's registry, and whatever shows it, has the metrics
``fastloop_*``.  In the library's multiprocess mode, that is where
``PROMETHEUS_MULTIPROC_DIR`` is set, the loop writes them to the process's
files each second, for whichever process answers.
"""

from __future__ import annotations

import asyncio
import weakref
from typing import TYPE_CHECKING, Any, ClassVar, NamedTuple

try:
    from prometheus_client import REGISTRY, values
    from prometheus_client.metrics_core import (
        CounterMetricFamily,
        GaugeMetricFamily,
        HistogramMetricFamily,
    )
    from prometheus_client.utils import floatToGoString
except ImportError as _exc:
    raise ImportError(
        "fastloop.contrib.prometheus needs prometheus_client: "
        "pip install fastloop[prometheus]"
    ) from _exc

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from prometheus_client import CollectorRegistry
    from prometheus_client.metrics_core import Metric

    from fastloop.loop import Loop
    from fastloop.metrics import Lag, LoopMetrics

__all__ = ["LoopCollector", "register"]


class _Family(NamedTuple):
    """One metric: how it is called, and what it says of a loop."""

    name: str
    help: str
    read: Callable[[LoopMetrics], float]
    state: str = ""  # the value of the label of that name, if any
    most: bool = False  # of several processes the greatest counts, not the sum

    @property
    def labels(self) -> tuple[str, ...]:
        return ("loop", "state") if self.state else ("loop",)


_TIME = "Time of the loop by what it went to."
_COUNTERS = (
    _Family("fastloop_turns", "Iterations.", lambda m: m.turns),
    _Family("fastloop_polls", "Looks for events.", lambda m: m.polls),
    _Family("fastloop_callbacks", "Callbacks run.", lambda m: m.callbacks),
    _Family(
        "fastloop_time_seconds",
        _TIME,
        lambda m: m.callback_time_ns / 1e9,
        "callbacks",
    ),
    _Family(
        "fastloop_time_seconds", _TIME, lambda m: m.poll_time_ns / 1e9, "polls"
    ),
    _Family(
        "fastloop_time_seconds",
        _TIME,
        lambda m: m.gil_wait_time_ns / 1e9,
        "gil_wait",
    ),
    _Family(
        "fastloop_time_seconds",
        _TIME,
        lambda m: m.sleep_time_ns / 1e9,
        "sleep",
    ),
    _Family(
        "fastloop_connections_made",
        "Connections opened, accepted ones among them.",
        lambda m: m.connections_made,
    ),
    _Family(
        "fastloop_connections_accepted",
        "Connections accepted.",
        lambda m: m.connections_accepted,
    ),
    _Family(
        "fastloop_connections_refused",
        "Connections accepted and closed at once.",
        lambda m: m.connections_refused,
    ),
    _Family(
        "fastloop_connections_lost",
        "Connections that an error ended.",
        lambda m: m.connections_lost,
    ),
    _Family("fastloop_received_bytes", "Bytes in.", lambda m: m.bytes_in),
    _Family("fastloop_sent_bytes", "Bytes out.", lambda m: m.bytes_out),
    _Family(
        "fastloop_executor_calls",
        "Calls made by thread pools.",
        lambda m: m.executor_calls,
    ),
    _Family(
        "fastloop_executor_wait_seconds",
        "Time that calls waited for a thread.",
        lambda m: m.executor_wait_time_ns / 1e9,
    ),
    _Family(
        "fastloop_executor_run_seconds",
        "Time that calls ran in a thread.",
        lambda m: m.executor_run_time_ns / 1e9,
    ),
    _Family(
        "fastloop_slow_callbacks",
        "Callbacks that took slow_callback_duration or longer.",
        lambda m: m.slow_callbacks,
    ),
)
_GAUGES = (
    _Family(
        "fastloop_busy_seconds",
        "How long the loop has not looked for events now.",
        lambda m: m.busy_ns / 1e9,
        most=True,
    ),
    _Family("fastloop_ready", "Ready callbacks.", lambda m: m.ready),
    _Family(
        "fastloop_ready_high_water",
        "The most ready callbacks so far.",
        lambda m: m.ready_high_water,
        most=True,
    ),
    _Family("fastloop_timers", "Timers that wait.", lambda m: m.timers),
    _Family(
        "fastloop_timers_high_water",
        "The most timers so far.",
        lambda m: m.timers_high_water,
        most=True,
    ),
    _Family(
        "fastloop_connections",
        "Connections open.",
        lambda m: m.connections_open,
    ),
    _Family(
        "fastloop_write_buffer_bytes",
        "Bytes that wait to be sent.",
        lambda m: m.write_buffer_bytes,
    ),
    _Family(
        "fastloop_executor_threads",
        "Threads of the default executor.",
        lambda m: m.executor_threads,
    ),
    _Family(
        "fastloop_executor_queue",
        "Calls that wait for a thread.",
        lambda m: m.executor_queue,
    ),
    _Family(
        "fastloop_executor_running",
        "Calls that run in a thread.",
        lambda m: m.executor_running,
    ),
)
_LAG = _Family(
    "fastloop_lag_seconds",
    "How long the loop did not look for events, each time.",
    lambda m: m.lag.count,
)


def _bounds(lag: Lag) -> list[str]:
    bounds = [floatToGoString(ns / 1e9) for ns in lag.bounds_ns]
    return [*bounds, "+Inf"]


# -- one process --------------------------------------------------------------


class LoopCollector:
    """Tells a registry of loops, each by a name, the label ``loop``.

    It keeps no loop alive, and is silent about one that is closed.
    """

    def __init__(self) -> None:
        self._loops: dict[str, weakref.ref[Loop]] = {}

    def add(self, loop: Loop, name: str) -> None:
        """Tell of a loop from now on; ValueError if its name is another's."""
        known = self._loops.get(name)
        other = None if known is None else known()
        if other is not None and other is not loop and not other.is_closed():
            raise ValueError(f"another loop is registered as {name!r}")
        self._loops[name] = weakref.ref(loop)

    def _read(self) -> Iterator[tuple[str, LoopMetrics]]:
        for name, reference in list(self._loops.items()):
            loop = reference()
            if loop is not None and not loop.is_closed():
                yield name, loop.metrics()

    def collect(self) -> Iterator[Metric]:
        """Yield the metrics of all loops, as the registry asks for them."""
        found = list(self._read())
        for families, kind in (
            (_COUNTERS, CounterMetricFamily),
            (_GAUGES, GaugeMetricFamily),
        ):
            made: dict[str, Any] = {}
            for family in families:
                metric = made.setdefault(
                    family.name,
                    kind(family.name, family.help, labels=family.labels),
                )
                for name, at in found:
                    labels = [name, family.state][: len(family.labels)]
                    metric.add_metric(labels, family.read(at))
            yield from made.values()
        lag = HistogramMetricFamily(_LAG.name, _LAG.help, labels=["loop"])
        for name, at in found:
            below, buckets = 0, []
            for bound, count in zip(
                _bounds(at.lag), at.lag.counts, strict=True
            ):
                below += count
                buckets.append((bound, below))
            lag.add_metric([name], buckets, at.lag.sum_ns / 1e9)
        yield lag


# -- several processes --------------------------------------------------------


class _Writer:
    """Writes what a loop does to the values that the library keeps.

    Their files outlive a process and so do its counts; those of gauges go
    when the server tells the library that the process is dead.
    """

    #: By metric, sample and labels: of the process, for two with one key
    #: would each write what it remembers.
    _values: ClassVar[dict[tuple[str, ...], Any]] = {}

    def __init__(self, loop: Loop, name: str, interval_s: float) -> None:
        self._loop = weakref.ref(loop)
        self._name = name
        self._interval_s = interval_s
        self._last: dict[tuple[str, ...], float] = {}
        self.write()

    def _value(
        self, kind: str, family: _Family, sample: str, **labels: str
    ) -> tuple[tuple[str, ...], Any]:
        labels = {"loop": self._name, **labels}
        key = (family.name, sample, *labels.values())
        found = self._values.get(key)
        if found is None:
            found = self._values[key] = values.ValueClass(
                kind,
                family.name,
                sample,
                tuple(labels),
                tuple(labels.values()),
                family.help,
                multiprocess_mode="livemax" if family.most else "livesum",
            )
        return key, found

    def _add(self, place: tuple[tuple[str, ...], Any], now: float) -> None:
        key, value = place
        value.inc(now - self._last.get(key, 0.0))
        self._last[key] = now

    def _write_lag(self, lag: Lag) -> None:
        for bound, count in zip(_bounds(lag), lag.counts, strict=True):
            place = self._value(
                "histogram", _LAG, f"{_LAG.name}_bucket", le=bound
            )
            self._add(place, count)
        place = self._value("histogram", _LAG, f"{_LAG.name}_sum")
        self._add(place, lag.sum_ns / 1e9)

    def write(self) -> None:
        """Write now, and again after the interval while the loop lives."""
        loop = self._loop()
        if loop is None or loop.is_closed():
            return
        found = loop.metrics()
        for family in _COUNTERS:
            state = {"state": family.state} if family.state else {}
            place = self._value(
                "counter", family, f"{family.name}_total", **state
            )
            self._add(place, family.read(found))
        for family in _GAUGES:
            _, value = self._value("gauge", family, family.name)
            value.set(family.read(found))
        self._write_lag(found.lag)
        loop.call_later(self._interval_s, self.write)


# -- both ---------------------------------------------------------------------

_collectors: weakref.WeakKeyDictionary[CollectorRegistry, LoopCollector]
_collectors = weakref.WeakKeyDictionary()


def register(
    loop: Loop | None = None,
    *,
    name: str = "main",
    registry: CollectorRegistry = REGISTRY,
    interval_s: float = 1.0,
) -> None:
    """Tell Prometheus of a loop, by default the running one.

    Turns its metrics on.  name is the value of the label ``loop`` and tells
    loops of one process apart.  In multiprocess mode the loop, whose thread
    must call this, writes its metrics every interval_s seconds, and registry
    is not used.  Raises TypeError for a loop that is not fastloop's,
    ValueError for a name that another open loop of the registry has,
    RuntimeError where no loop runs and none is given.
    """
    from fastloop.loop import Loop

    if loop is None:
        running = asyncio.get_running_loop()
        if not isinstance(running, Loop):
            raise TypeError(f"a fastloop.Loop is required, not {running!r}")
        loop = running
    loop.enable_metrics()
    if getattr(values.ValueClass, "_multiprocess", False):
        _Writer(loop, name, interval_s)
        return
    collector = _collectors.get(registry)
    if collector is None:
        collector = LoopCollector()
        collector.add(loop, name)
        registry.register(collector)
        _collectors[registry] = collector
    else:
        collector.add(loop, name)
