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
    field: str
    help: str
    state: str  # the value of the label of that name, if any

    @property
    def labels(self) -> tuple[str, ...]:
        return ("loop", "state") if self.state else ("loop",)

    @property
    def mode(self) -> str:
        """How values of several processes become one."""
        greatest = self.field == "busy_ns" or self.field.endswith("high_water")
        return "livemax" if greatest else "livesum"

    def read(self, metrics: LoopMetrics) -> float:
        """Return the field's value; times in seconds."""
        value: float = getattr(metrics, self.field)
        return value / 1e9 if self.field.endswith("_ns") else value


def _families(table: str) -> list[_Family]:
    """Read lines of a name, a field and a help; name:state has a state."""
    found = []
    for line in table.strip().splitlines():
        name, field, text = line.split(None, 2)
        name, _, state = name.partition(":")
        found.append(_Family(f"fastloop_{name}", field, text, state))
    return found


_COUNTERS = _families("""
iterations             iterations             Iterations.
polls                  polls                  Looks for events.
callbacks              callbacks              Callbacks run.
time_seconds:callbacks callback_time_ns       Time by what it went to.
time_seconds:polls     poll_time_ns           Time by what it went to.
time_seconds:gil_wait  gil_wait_time_ns       Time by what it went to.
time_seconds:sleep     sleep_time_ns          Time by what it went to.
connections_made       connections_made       Connections opened or accepted.
connections_accepted   connections_accepted   Connections accepted.
connections_refused    connections_refused    Those closed at once.
connections_lost       connections_lost       Connections an error ended.
received_bytes         bytes_in               Bytes in.
sent_bytes             bytes_out              Bytes out.
executor_calls         executor_calls         Calls made by thread pools.
executor_wait_seconds  executor_wait_time_ns  Time they waited for a thread.
executor_run_seconds   executor_run_time_ns   Time they ran in a thread.
slow_callbacks         slow_callbacks         Over slow_callback_duration.
blocked_callbacks      blocked_callbacks      Reported by the watchdog.
""")
_GAUGES = _families("""
busy_seconds           busy_ns                Time since it looked for events.
ready                  ready                  Ready callbacks.
ready_high_water       ready_high_water       The most ready callbacks so far.
timers                 timers                 Timers that wait.
timers_high_water      timers_high_water      The most timers so far.
connections            connections_open       Connections open.
write_buffer_bytes     write_buffer_bytes     Bytes that wait to be sent.
executor_threads       executor_threads       Threads of the default executor.
executor_queue         executor_queue         Calls that wait for a thread.
executor_running       executor_running       Calls that run in a thread.
""")
(_LAG,) = _families("""
lag_seconds            lag                    How late it looked for events.
""")


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
        if key not in self._values:
            self._values[key] = values.ValueClass(
                kind,
                family.name,
                sample,
                tuple(labels),
                tuple(labels.values()),
                family.help,
                multiprocess_mode=family.mode,
            )
        return key, self._values[key]

    def _count(
        self, kind: str, family: _Family, end: str, now: float, **labels: str
    ) -> None:
        key, value = self._value(kind, family, family.name + end, **labels)
        value.inc(now - self._last.get(key, 0.0))
        self._last[key] = now

    def _write(self, loop: Loop) -> None:
        found = loop.metrics()
        for one in _COUNTERS:
            state = {"state": one.state} if one.state else {}
            self._count("counter", one, "_total", one.read(found), **state)
        for one in _GAUGES:
            _, value = self._value("gauge", one, one.name)
            value.set(one.read(found))
        lag = found.lag
        for bound, count in zip(_bounds(lag), lag.counts, strict=True):
            self._count("histogram", _LAG, "_bucket", count, le=bound)
        self._count("histogram", _LAG, "_sum", lag.sum_ns / 1e9)

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
