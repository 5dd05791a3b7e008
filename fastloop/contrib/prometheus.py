"""The metrics of loops for Prometheus, by way of ``prometheus_client``.

In the program, once its loop runs::

    from fastloop.contrib import prometheus
    prometheus.register()

From then on the library's registry has the metrics ``fastloop_*``.  In the
library's multiprocess mode (``PROMETHEUS_MULTIPROC_DIR`` is set) the loop
writes them to its process's files each second, and any process can answer.
"""

from __future__ import annotations

import functools
from itertools import accumulate
from typing import TYPE_CHECKING, Any, NamedTuple

try:
    from prometheus_client import REGISTRY, Metric, values
    from prometheus_client.metrics_core import HistogramMetricFamily
    from prometheus_client.utils import floatToGoString
except ImportError as _exc:
    raise ImportError(
        "fastloop.contrib.prometheus needs prometheus_client: "
        "pip install prometheus-client"
    ) from _exc

from . import NamedLoops, metered

if TYPE_CHECKING:
    from collections.abc import Iterator

    from prometheus_client import CollectorRegistry

    from fastloop.loop import Loop
    from fastloop.metrics import Lag, LoopMetrics

__all__ = ["register"]


class _Sample(NamedTuple):
    """A value that is shown: its metric, its name, and where it is from."""

    kind: str
    metric: str
    help: str
    field: str
    state: str  # the value of the label of that name, if any

    @property
    def name(self) -> str:
        return (
            f"{self.metric}_total" if self.kind == "counter" else self.metric
        )

    def labels(self, loop: str) -> dict[str, str]:
        """Return the sample's labels for a loop of this name."""
        return {"loop": loop, **({"state": self.state} if self.state else {})}

    def read(self, metrics: LoopMetrics) -> float:
        """Return the field's value; times in seconds."""
        value: float = getattr(metrics, self.field)
        return value / 1e9 if self.field.endswith("_ns") else value


def _samples(kind: str, table: str) -> Iterator[_Sample]:
    """Read lines of a name, a field and a help; name:state has a state."""
    for line in table.strip().splitlines():
        name, field, text = line.split(None, 2)
        name, _, state = name.partition(":")
        yield _Sample(kind, f"fastloop_{name}", text, field, state)


_COUNTERS = """
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
"""
_GAUGES = """
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
"""
_SAMPLES = [*_samples("counter", _COUNTERS), *_samples("gauge", _GAUGES)]
_LAG = "fastloop_lag_seconds"
_LAG_HELP = "How late it looked for events."


def _bounds(lag: Lag) -> list[str]:
    bounds = [floatToGoString(ns / 1e9) for ns in lag.bounds_ns]
    return [*bounds, "+Inf"]


class _Collector:
    """Tells a registry of the loops that are open when it is read."""

    def __init__(self) -> None:
        self.loops = NamedLoops()

    def collect(self) -> Iterator[Metric]:
        """Yield the metrics of all loops."""
        found = [(name, loop.metrics()) for name, loop in self.loops]
        made: dict[str, Metric] = {}
        for one in _SAMPLES:
            metric = made.setdefault(
                one.metric, Metric(one.metric, one.help, one.kind)
            )
            for loop, now in found:
                metric.add_sample(one.name, one.labels(loop), one.read(now))
        yield from made.values()
        lag = HistogramMetricFamily(_LAG, _LAG_HELP, labels=["loop"])
        for loop, now in found:
            buckets = zip(
                _bounds(now.lag), accumulate(now.lag.counts), strict=True
            )
            lag.add_metric([loop], list(buckets), now.lag.sum_ns / 1e9)
        yield lag


# -- several processes --------------------------------------------------------

#: The loops that are written in the library's multiprocess mode.
_written = NamedLoops()


#: By name and labels: two for one key would each write what they remember.
_values: dict[tuple[str, ...], Any] = {}


def _value(
    kind: str, metric: str, help: str, name: str, mode: str, **labels: str
) -> Any:
    """Return a value that the library stores in this process's files."""
    key = (name, *labels.values())
    if key not in _values:
        _values[key] = values.ValueClass(
            kind,
            metric,
            name,
            tuple(labels),
            tuple(labels.values()),
            help,
            multiprocess_mode=mode,
        )
    return _values[key]


def _write(
    loop: Loop, name: str, interval_s: float, last: dict[Any, float]
) -> None:
    """Write a loop's metrics, and again after the interval.

    The counts outlive the process; gauges are removed when the server tells
    the library that the process is dead.  last has the counts of the time
    before.
    """

    def count(value: Any, now: float) -> None:
        value.inc(now - last.get(value, 0.0))
        last[value] = now

    try:
        found = loop.metrics()
        for one in _SAMPLES:
            is_most = one.field == "busy_ns" or one.field.endswith(
                "high_water"
            )
            mode = "livemax" if is_most else "livesum"
            value = _value(
                one.kind,
                one.metric,
                one.help,
                one.name,
                mode,
                **one.labels(name),
            )
            if one.kind == "gauge":
                value.set(one.read(found))
            else:
                count(value, one.read(found))
        lag = functools.partial(_value, "histogram", _LAG, _LAG_HELP)
        for bound, n in zip(_bounds(found.lag), found.lag.counts, strict=True):
            count(lag(f"{_LAG}_bucket", "", loop=name, le=bound), n)
        count(lag(f"{_LAG}_sum", "", loop=name), found.lag.sum_ns / 1e9)
    finally:  # the disk may be full for a while
        loop.call_later(interval_s, _write, loop, name, interval_s, last)


# -- both ---------------------------------------------------------------------


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
        if _written.add(loop, name):
            loop.call_soon(_write, loop, name, interval_s, {})
        return
    # The registry is asked, as the program may have unregistered ours.
    for collector in registry._collector_to_names:
        if isinstance(collector, _Collector):
            break
    else:
        collector = _Collector()
        registry.register(collector)
    collector.loops.add(loop, name)
