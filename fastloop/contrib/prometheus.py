"""The metrics of loops for Prometheus, by way of ``prometheus_client``.

In the program, once its loop runs::

    from fastloop.contrib import prometheus
    prometheus.register()

From then on the library's registry has the metrics ``fastloop_*``.  In the
library's multiprocess mode (``PROMETHEUS_MULTIPROC_DIR`` is set) the loop
writes them to its process's files each second, and any process can answer.
"""

from __future__ import annotations

import contextlib
import os
import threading
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
        "pip install prometheus-client"
    ) from _exc

from . import metered

if TYPE_CHECKING:
    from collections.abc import Iterator

    from prometheus_client import CollectorRegistry
    from prometheus_client.metrics_core import Metric

    from fastloop.loop import Loop
    from fastloop.metrics import Lag, LoopMetrics

__all__ = ["LoopCollector", "register"]


class _Family(NamedTuple):
    """One metric: its name and help, and the field that it shows."""

    name: str
    help: str
    field: str
    state: str = ""  # the value of the label of that name, if any
    most: bool = False  # of several processes the greatest counts, not the sum

    @property
    def labels(self) -> tuple[str, ...]:
        return ("loop", "state") if self.state else ("loop",)

    def read(self, metrics: LoopMetrics) -> float:
        """Return the field's value; times in seconds."""
        value: float = getattr(metrics, self.field)
        return value / 1e9 if self.field.endswith("_ns") else value


def _time(state: str, field: str) -> _Family:
    text = "Time of the loop by what it went to."
    return _Family("fastloop_time_seconds", text, field, state)


def _connections(kind: str, text: str) -> _Family:
    name = f"connections_{kind}"
    return _Family(f"fastloop_{name}", text, name)


_COUNTERS = (
    _Family("fastloop_iterations", "Iterations.", "iterations"),
    _Family("fastloop_polls", "Looks for events.", "polls"),
    _Family("fastloop_callbacks", "Callbacks run.", "callbacks"),
    _time("callbacks", "callback_time_ns"),
    _time("polls", "poll_time_ns"),
    _time("gil_wait", "gil_wait_time_ns"),
    _time("sleep", "sleep_time_ns"),
    _connections("made", "Connections opened, accepted ones among them."),
    _connections("accepted", "Connections accepted."),
    _connections("refused", "Connections accepted and closed at once."),
    _connections("lost", "Connections that an error ended."),
    _Family("fastloop_received_bytes", "Bytes in.", "bytes_in"),
    _Family("fastloop_sent_bytes", "Bytes out.", "bytes_out"),
    _Family(
        "fastloop_executor_calls",
        "Calls made by thread pools.",
        "executor_calls",
    ),
    _Family(
        "fastloop_executor_wait_seconds",
        "Time that calls waited for a thread.",
        "executor_wait_time_ns",
    ),
    _Family(
        "fastloop_executor_run_seconds",
        "Time that calls ran in a thread.",
        "executor_run_time_ns",
    ),
    _Family(
        "fastloop_slow_callbacks",
        "Callbacks that took slow_callback_duration or longer.",
        "slow_callbacks",
    ),
    _Family(
        "fastloop_blocked_callbacks",
        "Callbacks that the watchdog has reported.",
        "blocked_callbacks",
    ),
)


def _gauge(field: str, text: str, most: bool = False) -> _Family:
    return _Family(f"fastloop_{field}", text, field, most=most)


_GAUGES = (
    _Family(
        "fastloop_busy_seconds",
        "How long the loop has not looked for events now.",
        "busy_ns",
        most=True,
    ),
    _gauge("ready", "Ready callbacks."),
    _gauge("ready_high_water", "The most ready callbacks so far.", True),
    _gauge("timers", "Timers that wait."),
    _gauge("timers_high_water", "The most timers so far.", True),
    _Family("fastloop_connections", "Connections open.", "connections_open"),
    _gauge("write_buffer_bytes", "Bytes that wait to be sent."),
    _gauge("executor_threads", "Threads of the default executor."),
    _gauge("executor_queue", "Calls that wait for a thread."),
    _gauge("executor_running", "Calls that run in a thread."),
)
_LAG = _Family(
    "fastloop_lag_seconds",
    "How long the loop did not look for events, each time.",
    "lag",
)


def _bounds(lag: Lag) -> list[str]:
    bounds = [floatToGoString(ns / 1e9) for ns in lag.bounds_ns]
    return [*bounds, "+Inf"]


# -- one process --------------------------------------------------------------


class LoopCollector:
    """Reports loops to a registry, each by a name, the label ``loop``.

    It keeps no loop alive, and reports no closed one.
    """

    def __init__(self) -> None:
        self._loops: dict[str, tuple[weakref.ref[Loop], int]] = {}

    def _has(self, loop: Loop, name: str) -> bool:
        """Return whether a loop has this name; ValueError if another has.

        A forked child may give its parent's names to its own loops.
        """
        reference, pid = self._loops.get(name, (None, 0))
        other = None if reference is None else reference()
        if other is loop:
            return True
        if other is not None and pid == os.getpid() and not other.is_closed():
            raise ValueError(f"another loop is registered as {name!r}")
        return False

    def add(self, loop: Loop, name: str) -> None:
        """Report a loop from now on; ValueError if its name is taken."""
        self._has(loop, name)
        self._loops[name] = weakref.ref(loop), os.getpid()

    def _read(self) -> Iterator[tuple[str, LoopMetrics]]:
        for name, (reference, _) in list(self._loops.items()):
            loop = reference()
            if loop is not None and not loop.is_closed():
                yield name, loop.metrics()

    def collect(self) -> Iterator[Metric]:
        """Yield the metrics of all loops, when the registry is read."""
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
    """Writes a loop's metrics to the values that the library stores in files.

    The counts outlive the process; gauges are removed when the server tells
    the library that the process is dead.
    """

    #: By metric, sample and labels: of the process, for two with one key
    #: would each write what it remembers.
    _values: ClassVar[dict[tuple[str, ...], Any]] = {}

    def __init__(self, loop: Loop, name: str, interval_s: float) -> None:
        self._loop = weakref.ref(loop)
        self._name = name
        self._interval_s = interval_s
        self._last: dict[tuple[str, ...], float] = {}
        self._write(loop)
        loop.call_later(interval_s, self._write_again)

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

    def _write(self, loop: Loop) -> None:
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

    def _write_again(self) -> None:
        """Write, and again after the interval while the loop lives."""
        loop = self._loop()
        if loop is None or loop.is_closed():
            return
        try:
            self._write(loop)
        finally:  # the disk may be full for a while
            loop.call_later(self._interval_s, self._write_again)


# -- both ---------------------------------------------------------------------

_collectors: weakref.WeakKeyDictionary[CollectorRegistry, LoopCollector]
_collectors = weakref.WeakKeyDictionary()
#: The loops that have a writer; no registry reads it.
_written = LoopCollector()
_lock = threading.Lock()


def _renew_lock() -> None:
    """In a forked child: a thread of the parent may have held it."""
    global _lock
    _lock = threading.Lock()


os.register_at_fork(after_in_child=_renew_lock)


def register(
    loop: Loop | None = None,
    *,
    name: str = "main",
    registry: CollectorRegistry = REGISTRY,
    interval_s: float = 1.0,
) -> None:
    """Report a loop to Prometheus, by default the running one.

    Turns its metrics on.  name is the value of the label ``loop`` and tells
    loops of one process apart.  In multiprocess mode the loop, whose thread
    must call this, writes its metrics every interval_s seconds, and registry
    is not used.  Raises TypeError for a loop that is not fastloop's and for a
    name that is no str, ValueError for a name that another open loop of the
    registry has (of the process in multiprocess mode), RuntimeError where no
    loop runs and none is given.  A second call for the same loop and name
    changes nothing.
    """
    loop = metered(loop, name)
    with _lock:
        if getattr(values.ValueClass, "_multiprocess", False):
            if not _written._has(loop, name):
                _Writer(loop, name, interval_s)
            _written.add(loop, name)
            return
        collector = _collectors.get(registry)
        if collector is None:
            collector = LoopCollector()
            collector.add(loop, name)
            registry.register(collector)
            _collectors[registry] = collector
            return
        collector.add(loop, name)
        # The program may have unregistered it.
        with contextlib.suppress(ValueError):  # a duplicate of itself
            registry.register(collector)
