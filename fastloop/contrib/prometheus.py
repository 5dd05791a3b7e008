"""The metrics of loops for Prometheus, by way of ``prometheus_client``.

In the program, once its loop runs::

    from fastloop.contrib import prometheus
    prometheus.register()

From then on the library's registry has the metrics ``fastloop_*``.  In the
library's multiprocess mode (``PROMETHEUS_MULTIPROC_DIR`` is set) the loop
writes them to its process's files each second, and any process can answer.
"""

from __future__ import annotations

from itertools import accumulate
from typing import TYPE_CHECKING, Any, NamedTuple

try:
    from prometheus_client import REGISTRY, Metric, values
    from prometheus_client.utils import floatToGoString
except ImportError as _exc:
    raise ImportError(
        "fastloop.contrib.prometheus needs prometheus_client: "
        "pip install prometheus-client"
    ) from _exc

from fastloop.observe._observed import NamedLoops, lock

from . import metered

if TYPE_CHECKING:
    from collections.abc import Iterator

    from prometheus_client import CollectorRegistry

    from fastloop.loop import Loop
    from fastloop.metrics import LoopMetrics

__all__ = ["register"]


#: The name of a metric and, after a colon, the value of its label `state`; the
#: field of LoopMetrics; and the help.
_COUNTERS = """
iterations             iterations             Iterations.
polls                  polls                  Polls for events.
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


class _Sample(NamedTuple):
    """A value, with what both ways of showing it need to know."""

    kind: str
    metric: str
    help: str
    name: str
    value: float
    labels: dict[str, str]


def _samples(now: LoopMetrics, loop: str, adds_up: bool) -> Iterator[_Sample]:
    """Yield the values of a loop of this name; times in seconds.

    A bucket of the histogram adds up those before it for a registry, but not
    in the files of the multiprocess mode.
    """
    for kind, table, end in (
        ("counter", _COUNTERS, "_total"),
        ("gauge", _GAUGES, ""),
    ):
        for line in table.strip().splitlines():
            name, field, text = line.split(None, 2)
            name, _, state = name.partition(":")
            value = getattr(now, field)
            if field.endswith("_ns"):
                value /= 1e9
            metric = f"fastloop_{name}"
            labels = {"loop": loop, **({"state": state} if state else {})}
            yield _Sample(kind, metric, text, metric + end, value, labels)
    lag = "histogram", "fastloop_lag_seconds", "How late it looked for events."
    name, labels = lag[1], {"loop": loop}
    bounds = [floatToGoString(ns / 1e9) for ns in now.lag.bounds_ns]
    counts = accumulate(now.lag.counts) if adds_up else now.lag.counts
    for bound, count in zip([*bounds, "+Inf"], counts, strict=True):
        yield _Sample(*lag, f"{name}_bucket", count, {**labels, "le": bound})
    if adds_up:
        yield _Sample(*lag, f"{name}_count", now.lag.count, labels)
    yield _Sample(*lag, f"{name}_sum", now.lag.sum_ns / 1e9, labels)


class _Collector:
    """Tells a registry of the loops that are open when it is read."""

    def __init__(self) -> None:
        self.loops = NamedLoops()

    def collect(self) -> Iterator[Metric]:
        made: dict[str, Metric] = {}
        for loop_name, loop in self.loops:
            for kind, metric, text, name, value, labels in _samples(
                loop.metrics(), loop_name, True
            ):
                made.setdefault(metric, Metric(metric, text, kind)).add_sample(
                    name, labels, value
                )
        yield from made.values()


#: The loops that are written in the library's multiprocess mode.
_written = NamedLoops()
#: The values that the library stores in this process's files, by their names
#: and labels: two for one key would each write what they remember.
_values: dict[tuple[str, ...], Any] = {}


def _stored(sample: _Sample) -> Any:
    kind, metric, text, name, _, labels = sample
    key = (name, *labels.values())
    if key not in _values:
        is_most = name.endswith(("busy_seconds", "high_water"))
        _values[key] = values.ValueClass(
            kind,
            metric,
            name,
            tuple(labels),
            tuple(labels.values()),
            text,
            multiprocess_mode="livemax" if is_most else "livesum",
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
    try:
        for sample in _samples(loop.metrics(), name, False):
            stored, value = _stored(sample), sample.value
            if sample.kind == "gauge":
                stored.set(value)
            else:
                stored.inc(value - last.get(stored, 0.0))
                last[stored] = value
    finally:  # the disk may be full for a while
        loop.call_later(interval_s, _write, loop, name, interval_s, last)


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
    loop runs and none is given.  Raises TypeError if interval_s is no
    number, ValueError if it is not above 0.  A second call for the same loop
    and name changes nothing.
    """
    if not interval_s > 0:  # also NaN
        raise ValueError(f"interval_s is a time above 0, not {interval_s!r}")
    loop = metered(loop, name)
    if loop is None:
        return
    with lock:
        if getattr(values.ValueClass, "_multiprocess", False):
            if _written.add(loop, name):
                loop.call_soon(_write, loop, name, interval_s, {})
            return
        # The registry is asked, as the program may have unregistered ours.
        for collector in list(registry._collector_to_names):
            if isinstance(collector, _Collector):
                collector.loops.add(loop, name)
                return
        collector = _Collector()
        collector.loops.add(loop, name)
        registry.register(collector)
