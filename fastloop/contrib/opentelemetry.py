"""The metrics of loops for OpenTelemetry.

In the program, once its loop runs::

    from fastloop.contrib import opentelemetry
    opentelemetry.instrument()

The instruments are named as OpenTelemetry's conventions name those of
Node.js's event loop (``nodejs.eventloop.delay.p99``), with ``fastloop`` in the
place of ``nodejs``: those of CPython know no event loop so far.
"""

from __future__ import annotations

import collections
import weakref
from functools import partial
from typing import TYPE_CHECKING

try:
    from opentelemetry import metrics as api
except ImportError as _exc:
    raise ImportError(
        "fastloop.contrib.opentelemetry needs opentelemetry-api: "
        "pip install opentelemetry-api"
    ) from _exc

from fastloop import __version__

from . import NamedLoops, metered

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from typing import Any

    from fastloop.loop import Loop
    from fastloop.metrics import LoopMetrics

__all__ = ["instrument"]

_BASE = "fastloop.eventloop"

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
        meter = api.get_meter("fastloop", __version__, provider)
        for name, (unit, value) in _GAUGES.items():
            meter.create_observable_gauge(
                f"{_BASE}.{name}",
                [self._observer(value)],
                unit,
                f"Event loop {name}.",
            )
        counter = partial(self._observer, counts=True)
        meter.create_observable_counter(
            f"{_BASE}.time",
            [
                counter(lambda change: change.busy_time_ns / 1e9, "active"),
                counter(lambda change: change.sleep_time_ns / 1e9, "idle"),
            ],
            "s",
            "Cumulative duration of time the event loop has been in each "
            "state.",
        )
        meter.create_observable_counter(
            f"{_BASE}.blocked_callbacks",
            [counter(lambda change: change.blocked_callbacks)],
            "{callback}",
            "Callbacks that the watchdog has reported.",
        )

    def _observer(
        self,
        value: Callable[[LoopMetrics], float],
        state: str = "",
        counts: bool = False,
    ) -> Callable[[object], Iterator[Any]]:
        """Return what observes a value of the time since it was called.

        Where it counts, the sum is observed, over all loops of a name.
        """
        last: weakref.WeakKeyDictionary[Loop, dict[str, LoopMetrics]]
        last = weakref.WeakKeyDictionary()
        sums: dict[str, float] = collections.defaultdict(int)
        more = {f"{_BASE}.state": state} if state else {}

        def observe(options: object) -> Iterator[Any]:
            for name, loop in self.loops:
                by_name = last.setdefault(loop, {})  # it may have two names
                now, before = loop.metrics(), by_name.get(name)
                by_name[name] = now
                seen = value(now if before is None else now.since(before))
                if counts:
                    seen = sums[name] = sums[name] + seen
                yield api.Observation(seen, {f"{_BASE}.name": name, **more})

        return observe


#: By provider; by `api` that of the global one, which may be set later.
_of_providers: weakref.WeakKeyDictionary[object, _Instruments]
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
    where an earlier loop of the same name was collected last.  Nothing is
    observed of a loop that is closed.  name is the value of the attribute
    ``fastloop.eventloop.name`` and tells loops of one process apart.
    meter_provider is the global one by default.  Raises TypeError for a loop
    that is not fastloop's and for a name that is no str, ValueError for a name
    that another open loop has, RuntimeError where no loop runs and none is
    given.
    """
    loop = metered(loop, name)
    if loop is None:
        return
    key = meter_provider or api
    if key not in _of_providers:
        _of_providers[key] = _Instruments(meter_provider)
    _of_providers[key].loops.add(loop, name)
