"""`top`: what the loops of a running process do, once or again and again.

It polls the socket that ``loop.enable_metrics(socket=...)`` opens, and shows
what changed between two reads.
"""

from __future__ import annotations

import contextlib
import json
import shutil
import sys
import threading
import time
from collections.abc import Iterator
from typing import Any

from fastloop.cli.commands import Refused, wrapped
from fastloop.cli.options import parser_of, printable
from fastloop.metrics import LoopMetrics

from .reading import find, read

__all__ = ["main"]

# -- showing ------------------------------------------------------------------


def _duration(ns: float) -> str:
    for unit, size in (("s", 1e9), ("ms", 1e6), ("µs", 1e3)):
        if ns >= size:
            return f"{ns / size:.3g} {unit}"
    return f"{ns:.0f} ns"


def _count(value: float) -> str:
    for unit, size in (("G", 1e9), ("M", 1e6), ("k", 1e3)):
        if value >= 10 * size:
            return f"{value / size:.4g} {unit}"
    return f"{value:.4g}"


def _rows(now: LoopMetrics, change: LoopMetrics) -> Iterator[tuple[str, str]]:
    """Yield the rows of one loop: names, and values with their units."""
    seconds = max(change.elapsed_ns / 1e9, 1e-9)
    latest = f"the last {_duration(change.elapsed_ns)}"

    def rate(amount: float, unit: str = "") -> str:
        text = _count(amount / seconds)
        space = " " if unit and text[-1].isdigit() else ""
        return f"{text}{space}{unit}/s"

    lag = change.lag
    yield "period", "since metrics were enabled" if change is now else latest
    yield (
        "utilization",
        f"{change.utilization:.1%}"
        + (f", busy for {_duration(now.busy_ns)}" if now.busy_ns else ""),
    )
    yield (
        "lag",
        f"p50 {_duration(lag.percentile_ns(50))}, "
        f"p99 {_duration(lag.percentile_ns(99))}, "
        f"most {_duration(lag.max_ns)}",
    )
    yield (
        "iterations",
        f"{rate(change.iterations)}, polls {rate(change.polls)}, "
        f"callbacks {rate(change.callbacks)}",
    )
    yield "ready", f"{now.ready}, most {now.ready_high_water}"
    yield "timers", f"{now.timers}, most {now.timers_high_water}"
    yield (
        "connections",
        f"{now.connections_open} open, "
        f"{rate(change.connections_accepted)} accepted, "
        f"{now.connections_refused} refused, {now.connections_lost} lost",
    )
    yield (
        "bytes",
        f"in {rate(change.bytes_in, 'B')}, out {rate(change.bytes_out, 'B')}, "
        f"waiting {_count(now.write_buffer_bytes)}",
    )
    calls = change.executor_calls or 1
    yield (
        "executor",
        f"{now.executor_threads} thread{'s' * (now.executor_threads != 1)}, "
        f"{now.executor_running} running, "
        f"{now.executor_queue} queued",
    )
    yield (
        "executor calls",
        f"{rate(change.executor_calls)}, "
        f"wait {_duration(change.executor_wait_time_ns / calls)}, "
        f"run {_duration(change.executor_run_time_ns / calls)}",
    )
    yield (
        "slow callbacks",
        f"{now.slow_callbacks}, {now.blocked_callbacks} reported as blocked",
    )


def _notes(loop: dict[str, Any], columns: int) -> list[str]:
    """Return lines: where the loop is blocked, and its slow callbacks.

    A terminal of so many columns cuts their ends.  So a file and line come
    first, and leave out the beginning of a long path.  0: no terminal.
    """

    def place(at: str, room: int) -> str:
        at = printable(at)
        return f"...{at[3 - room :]}" if columns and len(at) > room else at

    found = []
    if where := loop["blocked_in"][-8:]:
        found.append("blocked in:")
        found += [f"  {place(line, columns - 2)}" for line in where]
    if loop["slow"]:
        found.append("slow callbacks, the last ones first:")
    for slow in reversed(loop["slow"][-5:]):
        at = slow["stack"][0] if slow["stack"] else "(no line)"
        took = f"{_duration(slow['duration_ns'])}, {printable(slow['name'])}"
        found.append(f"  {place(at, columns * 2 // 3)}: {took}")
    if loop["blocked"]:
        found.append("blocked callbacks, the last ones first:")
    for one in reversed(loop["blocked"][-5:]):
        at = one["stack"][-1] if one["stack"] else "(no line)"
        took = f"{_duration(one['duration_ns'])} or more"
        in_gc = f"{_duration(one['gc_time_ns'])} in the garbage collector"
        text = f"{took}, {printable(one['name'])}, {in_gc}"
        found.append(f"  {place(at, columns * 2 // 3)}: {text}")
    return found


def _changes(
    now: dict[str, Any], before: dict[str, Any] | None
) -> Iterator[tuple[dict[str, Any], LoopMetrics]]:
    """Yield each loop with its metrics since the last read, or in all."""
    # By now another process may show its loops on this path.
    is_same = before is not None and before["pid"] == now["pid"]
    known = before["loops"] if before and is_same else []
    earlier = {loop["number"]: loop["metrics"] for loop in known}
    for loop in now["loops"]:
        metrics, past = loop["metrics"], earlier.get(loop["number"])
        # In a container the other process may have the same pid.
        if past is not None and past.elapsed_ns <= metrics.elapsed_ns:
            metrics = metrics.since(past)
        yield loop, metrics


def _title(found: dict[str, Any]) -> str:
    return printable(
        f"{found['program']}, process {found['pid']}, "
        f"Python {found['python']}, fastloop {found['fastloop']}"
    )


def _text(
    now: dict[str, Any], before: dict[str, Any] | None, columns: int = 0
) -> str:
    lines = wrapped(_title(now)).split("\n")
    for loop, change in _changes(now, before):
        lines.append("")
        for name, value in _rows(loop["metrics"], change):
            lines.append(f"{name:>14}  {value}")
        if notes := _notes(loop, columns):
            lines += ["", *notes]
    if not now["loops"]:
        lines.append("no loop is open")
    return "\n".join(lines)


def _fitted(text: str, columns: int, rows: int) -> str:
    """Cut a text to a terminal, whose last row is for the cursor."""
    lines = text.split("\n")
    if len(lines) >= rows:
        kept = max(rows - 2, 0)
        lines[kept:] = [f"and {len(lines) - kept} more lines"]
    return "\n".join(line[:columns] for line in lines)


def _watch(path: str, interval_s: float) -> None:
    before = None
    while True:
        now = read(path)
        if sys.stdout.isatty():
            columns, rows = shutil.get_terminal_size()
            text = _fitted(_text(now, before, columns), columns, rows)
            print(f"\x1b[H\x1b[2J{text}", flush=True)
        else:
            print(_text(now, before), flush=True)
        before = now
        time.sleep(interval_s)


# -- the command --------------------------------------------------------------


def main(words: list[str]) -> int:
    """Show the metrics of a process; return 0, or raise Refused."""
    parser = parser_of(
        "top",
        "The process must have a metrics socket: docs/seeing-inside.md.",
    )
    add = parser.add_argument
    add("target", help="the pid of a process, or the path of its socket")
    add("--once", action="store_true", help="show it once and end")
    add("--json", action="store_true", help="as JSON, times in nanoseconds")
    add(
        "--interval",
        type=float,
        default=1.0,
        metavar="SECONDS",
        help="seconds between two reads (default: 1)",
    )
    args = parser.parse_args(words)
    if not 0 < args.interval <= threading.TIMEOUT_MAX:
        raise Refused("--interval is a number of seconds above 0")
    path = find(args.target)
    try:
        if args.json:
            _print_json(path, args.interval, args.once)
        elif args.once:
            print(_text(read(path), None))
        else:
            _watch(path, args.interval)
    except (KeyboardInterrupt, BrokenPipeError):
        # The normal end: the user pressed Ctrl-C or closed the pipe.
        with contextlib.suppress(OSError):
            sys.stdout.flush()
    return 0


def _print_json(path: str, interval_s: float, once: bool) -> None:
    while True:
        found = read(path)
        for loop in found["loops"]:
            loop["metrics"] = loop["metrics"].to_dict()
        print(json.dumps(found), flush=True)
        if once:
            return
        time.sleep(interval_s)
