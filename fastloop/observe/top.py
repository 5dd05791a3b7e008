"""`top`: what the loops of a running process do, once or again and again.

It polls the socket that ``loop.enable_metrics(socket=...)`` opens, and shows
what changed between two reads, in colours on a terminal.
"""

from __future__ import annotations

import contextlib
import glob
import io
import json
import os
import socket
import sys
import threading
import time
from collections.abc import Iterator
from typing import Any

from fastloop.cli.commands import Refused
from fastloop.cli.options import parser_of
from fastloop.metrics import LoopMetrics

from .metrics_socket import default_path

__all__ = ["find", "main", "read"]

_TIMEOUT_S = 5.0
_PACKAGE = os.path.dirname(os.path.dirname(__file__))
_RUN = os.path.join(_PACKAGE, "cli", "run.py:")
#: A terminal's bold, yellow and normal text.
_COLOURS = ("\x1b[1m", "\x1b[33m", "\x1b[m")
_HOW = (
    "start it with FASTLOOP_METRICS_SOCKET=1, or have it call "
    "loop.enable_metrics(socket=True)"
)


# -- finding and reading ------------------------------------------------------


def _owner(pid: int) -> int:
    """Return a process's user; Refused if there is no such process."""
    try:
        os.kill(pid, 0)
    except (ProcessLookupError, OverflowError):
        raise Refused(f"there is no process {pid}") from None
    except PermissionError:
        raise Refused(
            f"process {pid} is another user's: its metrics are for that user"
        ) from None
    with contextlib.suppress(OSError):
        return os.stat(f"/proc/{pid}").st_uid
    return os.geteuid()


def _from_environment(pid: int) -> str | None:
    """Return FASTLOOP_METRICS_SOCKET of a process, read from /proc."""
    name = b"FASTLOOP_METRICS_SOCKET="
    with contextlib.suppress(OSError), open(f"/proc/{pid}/environ", "rb") as f:
        for entry in f.read().split(b"\0"):
            path = os.fsdecode(entry.removeprefix(name))
            if entry.startswith(name) and path not in ("", "0", "1"):
                folder = os.readlink(f"/proc/{pid}/cwd")
                return os.path.join(folder, path.replace("{pid}", str(pid)))
    return None


def _only_one() -> str:
    pattern = default_path(0, os.geteuid()).replace("0.sock", "*.sock")
    found = []
    for path in sorted(glob.glob(pattern)):
        with contextlib.suppress(Refused):
            read(path)
            found.append(path)
    if not found:
        raise Refused(f"no process shows its metrics: {_HOW}")
    if len(found) > 1:
        raise Refused(f"several processes do, name one: {' '.join(found)}")
    return found[0]


def find(target: str | None) -> str:
    """Return the socket's path for a pid, a path, or None.

    None selects the only process of this user that shows its metrics.  Raises
    Refused if there is no such socket, or more than one for None.
    """
    if target is None:
        return _only_one()
    if not target.isdecimal():
        return target
    pid = int(target)
    path = default_path(pid, _owner(pid))
    if not os.path.exists(path):
        path = _from_environment(pid) or path
    if not os.path.exists(path):
        raise Refused(f"process {pid} shows no metrics: {_HOW}")
    return path


_METRICS: dict[str, Any] = dict.fromkeys(LoopMetrics.__dataclass_fields__, int)
_METRICS["lag"] = {"counts": [int], "sum_ns": int, "max_ns": int}
#: The parts of a document that top uses, and their types.
_ANSWER = {
    "program": str,
    "pid": int,
    "python": str,
    "fastloop": str,
    "loops": [
        {
            "metrics": _METRICS,
            "blocked_in": [str],
            "slow": [{"name": str, "duration_ns": int, "stack": [str]}],
            "blocked": [
                {
                    "name": str,
                    "duration_ns": int,
                    "gc_time_ns": int,
                    "stack": [str],
                }
            ],
        }
    ],
}


def _fits(value: Any, shape: Any) -> bool:
    """Whether a JSON value has every key of a shape, with its types."""
    if isinstance(shape, dict):
        return isinstance(value, dict) and all(
            key in value and _fits(value[key], one)
            for key, one in shape.items()
        )
    if isinstance(shape, list):
        return isinstance(value, list) and all(
            _fits(one, shape[0]) for one in value
        )
    return type(value) is shape and (shape is str or 0 <= value < 1 << 64)


def read(path: str) -> dict[str, Any]:
    """Return the document that a process sends on its socket.

    Raises Refused if it cannot be read, or is no document of fastloop's.
    """
    parts = []
    try:
        with socket.socket(socket.AF_UNIX) as sock:
            sock.settimeout(_TIMEOUT_S)
            sock.connect(path)
            while part := sock.recv(1 << 16):
                parts.append(part)
        answer: dict[str, Any] = json.loads(b"".join(parts))
        if not _fits(answer, _ANSWER):
            raise ValueError
        for loop in answer["loops"]:
            loop["metrics"] = LoopMetrics.from_dict(loop["metrics"])
    except OSError as exc:
        raise Refused(f"{path}: {exc.strerror or exc}") from None
    except (ValueError, RecursionError):
        raise Refused(f"{path}: no metrics of fastloop's") from None
    return answer


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

    def rate(amount: float, unit: str = "") -> str:
        number = _count(amount / seconds)
        space = " " if unit and number[-1].isdigit() else ""
        return f"{number}{space}{unit}/s"

    lag = change.lag
    yield (
        "utilisation",
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
        f"{now.executor_queue} queued, {rate(change.executor_calls)} calls, "
        f"wait {_duration(change.executor_wait_time_ns / calls)}, "
        f"run {_duration(change.executor_run_time_ns / calls)}",
    )
    yield (
        "slow callbacks",
        f"{now.slow_callbacks}, {now.blocked_callbacks} reported as blocked",
    )


def _notes(loop: dict[str, Any]) -> list[str]:
    """Return lines: where the loop is blocked, and its slow callbacks."""
    found = []
    # Under `python -m fastloop run` every stack contains cli/run.py: omit it.
    where = [one for one in loop["blocked_in"] if not one.startswith(_RUN)]
    if where:
        found += ["blocked in:", *(f"  {line}" for line in where[-8:])]
    if loop["slow"]:
        found.append("slow callbacks, the last ones first:")
    for slow in reversed(loop["slow"][-5:]):
        at = slow["stack"][0] if slow["stack"] else ""
        found.append(f"  {_duration(slow['duration_ns'])} {slow['name']} {at}")
    if loop["blocked"]:
        found.append("blocked callbacks, the last ones first:")
    for one in reversed(loop["blocked"][-5:]):
        at = one["stack"][-1] if one["stack"] else ""
        took = f"{_duration(one['duration_ns'])} or more"
        in_gc = f"{_duration(one['gc_time_ns'])} in the garbage collector"
        found.append(f"  {took}, {in_gc}: {one['name']} {at}")
    return found


def _changes(
    now: dict[str, Any], before: dict[str, Any] | None
) -> Iterator[tuple[dict[str, Any], LoopMetrics]]:
    """Yield each loop with its metrics since the last read, or in all."""
    # Loops are matched by position.  If their number has changed, a loop was
    # made or closed, and positions cannot be compared.
    known = before["loops"] if before else []
    same = len(known) == len(now["loops"])
    for at, loop in enumerate(now["loops"]):
        metrics = loop["metrics"]
        earlier = known[at]["metrics"] if same else None
        if earlier is None or earlier.elapsed_ns > metrics.elapsed_ns:
            yield loop, metrics
        else:
            yield loop, metrics.since(earlier)


def _title(found: dict[str, Any]) -> str:
    return (
        f"{found['program']}, process {found['pid']}, "
        f"Python {found['python']}, fastloop {found['fastloop']}"
    )


def _text(
    now: dict[str, Any], before: dict[str, Any] | None, colours: bool
) -> str:
    bold, yellow, end = _COLOURS if colours else ("", "", "")
    lines = [_title(now)]
    for loop, change in _changes(now, before):
        lines.append("")
        lines += [
            f"{bold}{name:>14}{end}  {value}"
            for name, value in _rows(loop["metrics"], change)
        ]
        if notes := _notes(loop):
            lines += ["", yellow + "\n".join(notes) + end]
    if not now["loops"]:
        lines.append("no loop is open")
    return "\n".join(lines)


def _read_again(path: str, before: dict[str, Any]) -> dict[str, Any]:
    """Read the socket again; Refused says that the process has ended."""
    try:
        return read(path)
    except Refused:
        raise Refused(
            f"process {before['pid']} has ended, or has closed {path}"
        ) from None


def _watch(path: str, interval_s: float) -> None:
    now, before = read(path), None
    terminal = sys.stdout.isatty()
    clear = "\x1b[H\x1b[2J" if terminal else ""
    while True:
        print(f"{clear}{_text(now, before, terminal)}", flush=True)
        time.sleep(interval_s)
        before, now = now, _read_again(path, now)


# -- the command --------------------------------------------------------------


def main(words: list[str]) -> int:
    """Show the metrics of a process; return 0, or raise Refused."""
    parser = parser_of(
        "top", "The process must show them: docs/seeing-inside.md."
    )
    add = parser.add_argument
    add(
        "target",
        nargs="?",
        help="the pid of a process, or the path of its socket; by "
        "default the only process that has one",
    )
    add("--once", action="store_true", help="show it once and end")
    add("--json", action="store_true", help="as JSON, times in nanoseconds")
    add(
        "--interval",
        type=float,
        default=1.0,
        metavar="SECONDS",
        help="between two looks (1)",
    )
    args = parser.parse_args(words)
    if not 0 < args.interval <= threading.TIMEOUT_MAX:
        raise Refused("--interval is a number of seconds above 0")
    if isinstance(sys.stdout, io.TextIOWrapper):
        # A program's path may contain bytes that are not text.
        sys.stdout.reconfigure(errors="backslashreplace")
    path = find(args.target)
    try:
        if args.json:
            _print_json(path, args.interval, args.once)
        elif args.once:
            print(_text(read(path), None, sys.stdout.isatty()))
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
