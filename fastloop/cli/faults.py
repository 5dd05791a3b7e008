"""Validates a file of `bench --json`, which may have been edited."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

__all__ = ["FORMAT", "SHOWN", "UNITS", "faults"]

FORMAT = 1
#: Metrics that have a chart of bars, by kind; a README shows the first two.
SHOWN = {
    "http": ("rate", "cpu", "memory"),
    "program": ("time", "cpu", "memory"),
}
#: pyperf's units, and how many of them ours is.
UNITS = {
    "s": ("second", 1.0),
    "ms": ("second", 1e-3),
    "µs": ("second", 1e-6),
    "MiB": ("byte", 2.0**20),
    "": ("integer", 1.0),
}
_TYPES = {
    "what": str,
    "loops": list,
    "metrics": list,
    "runs": dict,
    "notes": list,
    "machine": dict,
    "method": list,
    "settings": dict,
    "untaken": list,
}
#: A figure is 0 or between these, which no ratio or interval overflows.
_LEAST, _MOST = 1e-9, 1e15


def faults(found: Any) -> Iterator[str]:
    """Yield what is wrong with the JSON of a file of `bench`.

    The first is what counts: each check relies on those before it.
    """
    data = found.get("fastloop") if isinstance(found, dict) else None
    if not isinstance(data, dict):
        yield "it has no figures of bench"
        return
    if data.get("format") != FORMAT:
        yield f"its format is not {FORMAT}"
    if data.get("kind") not in tuple(SHOWN):
        yield f"its kind is not {' or '.join(SHOWN)}"
    for key, kind in _TYPES.items():
        if not isinstance(data.get(key), kind):
            yield _lacking("", key)
    for key in ("loops", "notes", "method", "untaken"):
        if not all(isinstance(one, str) for one in data[key]):
            yield f"{key} has an item that is not text"
    for key in ("python", "cpu", "date"):
        if not isinstance(data["machine"].get(key), str):
            yield _lacking("machine: ", key)
    share, cut = data.get("share", ""), data.get("cut", 0)
    if share is not None and not (_is_number(share) and share <= 1):
        yield _lacking("", "share")
    if cut is not None and not isinstance(cut, str):
        yield _lacking("", "cut")
    yield from _faults_of_metrics(data["metrics"], SHOWN[data["kind"]])
    yield from _faults_of_runs(data)


def _lacking(where: str, key: str) -> str:
    return f"{where}{key} is missing or of the wrong type"


def _is_number(value: Any) -> bool:
    if isinstance(value, bool) or not isinstance(value, int | float):
        return False
    return value == 0 or _LEAST <= value <= _MOST


def _faults_of_metrics(
    metrics: list[Any], shown: tuple[str, ...]
) -> Iterator[str]:
    for place, metric in enumerate(metrics):
        for key in ("key", "title", "unit", "better"):
            here = metric.get(key) if isinstance(metric, dict) else None
            if not isinstance(here, str) or (key == "title" and not here):
                yield _lacking(f"metric {place + 1}: ", key)
        if metric["unit"] not in UNITS:
            yield f"metric {place + 1} has an unknown unit"
        if metric["better"] not in ("more", "less"):
            yield f"metric {place + 1} is better neither as more nor as less"
    keys = [metric["key"] for metric in metrics]
    for key in shown:
        if keys.count(key) != 1:
            yield f"the metric {key} is not there once"
    if keys[0] != shown[0]:
        yield f"the first metric is not {shown[0]}"


def _faults_of_runs(data: dict[str, Any]) -> Iterator[str]:
    labels, runs = data["loops"], data["runs"]
    if not labels or len({*labels}) < len(labels):
        yield "there is no loop, or one twice"
    if not all(label and label.isprintable() for label in labels):
        yield "a loop has a name that cannot be printed"
    keys = {metric["key"] for metric in data["metrics"]}
    first = data["metrics"][0]["key"]
    for label in labels:
        if not isinstance(runs.get(label), list):
            yield _lacking("runs: ", label)
        for number, run in enumerate(runs[label], 1):
            where = f"run {number} of {label}: "
            if not isinstance(run, dict):
                yield f"{where}it has no figures"
            for key in sorted(keys & run.keys() | {first}):
                if not _is_number(run.get(key)):
                    yield _lacking(where, key)
    if not any(runs[label] for label in labels):
        yield "there is no run"
