"""`top`: what the loops of a running process do, once or again and again.

It reads the socket that ``loop.enable_metrics(socket=True)`` opens, and shows
what changed between two reads.
"""

import json
import os
import shutil
import socket
import sys
import time
from collections.abc import Iterator
from contextlib import suppress
from typing import Any

from fastloop import __version__
from fastloop.metrics import LoopMetrics
from fastloop.observe.metrics_socket import path_of

from .commands import Refused, wrapped
from .options import parser_of, printable

_INTERVAL_S = 1.0
_TIMEOUT_S = 5.0
#: Characters that are shown of a place in the code: its end.
_PLACE_COLUMNS = 36


def find(target: str) -> str:
    """Return the path of a pid's socket, or the path that is given."""
    if not target.isdecimal():
        return target
    users = [os.geteuid()]
    with suppress(OSError):  # no such process, or no such file system
        users.insert(0, os.stat(f"/proc/{target}").st_uid)
    for user in users:
        path = path_of(target, user)
        with suppress(OSError):
            # Not what a third user has put there.
            if os.lstat(os.path.dirname(path)).st_uid == user:
                os.stat(path)
                return path
    raise Refused(
        f"there is no {path_of(target, users[0])}: start process {target} "
        "with FASTLOOP_METRICS_SOCKET=1, or name the path of its socket"
    )


def read(path: str) -> dict[str, Any]:
    """Return the document that a process sends on its socket.

    Raises Refused if it cannot be read, or has not what this version has.
    """
    try:
        with socket.socket(socket.AF_UNIX) as sock:
            sock.settimeout(_TIMEOUT_S)
            sock.connect(path)
            with sock.makefile("rb") as file:
                answer: dict[str, Any] = json.load(file)
        for loop in answer["loops"]:
            loop["metrics"] = LoopMetrics.from_dict(loop["metrics"])
    except TimeoutError as exc:
        raise Refused(
            f"{path}: no answer in {_TIMEOUT_S:g} s: the process is stopped, "
            "or C code holds its GIL"
        ) from exc
    except OSError as exc:
        raise Refused(f"{path}: {exc.strerror or exc}") from exc
    except (ArithmeticError, ValueError, KeyError, TypeError):
        raise Refused(
            f"{path}: no metrics of fastloop {__version__}"
        ) from None
    return answer


def _number(value: float, digits: int) -> str:
    text = f"{value:.{digits}g}"
    return f"{value:,.0f}" if "e" in text else text


def _duration(ns: float) -> str:
    for unit, size in (("s", 1e9), ("ms", 1e6), ("µs", 1e3)):
        if ns >= size:
            return f"{_number(ns / size, 3)} {unit}"
    return f"{ns:.0f} ns"


def _rate(amount: float, ns: int, unit: str = "") -> str:
    value = amount * 1e9 / max(ns, 1)
    for prefix, size in (("G", 1e9), ("M", 1e6), ("k", 1e3)):
        if value >= 10 * size:
            return f"{_number(value / size, 4)} {prefix}{unit}/s"
    return f"{_number(value, 4)}{unit and f' {unit}'}/s"


def _rows(now: LoopMetrics, change: LoopMetrics) -> dict[str, str]:
    """Return the rows of one loop: names, and values with their units."""
    took, lag = change.elapsed_ns, change.lag
    calls = change.executor_calls or 1
    return {
        "period": f"the last {_duration(took)}",
        "utilization": f"{change.utilization:.1%}, busy for "
        f"{_duration(now.busy_ns)}",
        "lag": f"p50 {_duration(lag.percentile_ns(50))}, "
        f"p99 {_duration(lag.percentile_ns(99))}, "
        f"most {_duration(lag.max_ns)}",
        "iterations": f"{_rate(change.iterations, took)}, "
        f"polls {_rate(change.polls, took)}, "
        f"callbacks {_rate(change.callbacks, took)}",
        "ready": f"{now.ready}, most {now.ready_high_water}; timers "
        f"{now.timers}, most {now.timers_high_water}",
        "connections": f"{now.connections_open} open, "
        f"{_rate(change.connections_accepted, took)} accepted",
        "refused, lost": f"in all {now.connections_refused}, "
        f"{now.connections_lost}",
        "bytes": f"in {_rate(change.bytes_in, took, 'B')}, "
        f"out {_rate(change.bytes_out, took, 'B')}, "
        f"waiting {now.write_buffer_bytes:,}",
        "executor": f"{now.executor_threads} threads, "
        f"{now.executor_running} running, {now.executor_queue} queued",
        "its calls": f"{_rate(change.executor_calls, took)}, "
        f"wait {_duration(change.executor_wait_time_ns / calls)}, "
        f"run {_duration(change.executor_run_time_ns / calls)}",
        "slow callbacks": f"in all {now.slow_callbacks}, "
        f"{now.blocked_callbacks} reported as blocked",
    }


def _place(at: str) -> str:
    """Return a place in the code without the beginning of a long path."""
    is_long = len(at := printable(at)) > _PLACE_COLUMNS
    return f"...{at[3 - _PLACE_COLUMNS :]}" if is_long else at


def _notes(loop: dict[str, Any]) -> Iterator[str]:
    """Yield lines: where the loop is blocked, and its slow callbacks."""
    if loop["blocked_in"]:
        yield "blocked in:"
        yield from (f"  {_place(line)}" for line in loop["blocked_in"][-8:])
    for kind, line in (("slow", 0), ("blocked", -1)):
        if loop[kind]:
            yield f"{kind} callbacks, the last ones first:"
        for one in reversed(loop[kind][-5:]):
            at = one["stack"][line] if one["stack"] else "(no line)"
            took = f"{_duration(one['duration_ns'])}, {printable(one['name'])}"
            if in_gc := one.get("gc_time_ns"):
                took += f", {_duration(in_gc)} in the GC"
            yield f"  {_place(at)}: {took}"


def _change(
    loop: dict[str, Any], before: dict[str, Any] | None, apart_ns: int
) -> LoopMetrics:
    """Return a loop's metrics since the last read, or in all."""
    now: LoopMetrics = loop["metrics"]
    for past in before["loops"] if before else ():
        # Another loop may have the name by now, or another process the path:
        # it is younger than that one would be.
        earlier = past["metrics"]
        is_same = past["name"] == loop["name"]
        if is_same and earlier.elapsed_ns + apart_ns / 2 <= now.elapsed_ns:
            return now.since(earlier)
    return now


def _text(
    now: dict[str, Any], before: dict[str, Any] | None, apart_ns: int = 0
) -> str:
    title = (
        f"{now['program']}, process {now['pid']}, "
        f"Python {now['python']}, fastloop {now['fastloop']}"
    )
    lines = wrapped(printable(title)).split("\n")
    for loop in now["loops"]:
        rows = _rows(loop["metrics"], _change(loop, before, apart_ns))
        lines += ["", *(f"{name:>14}  {text}" for name, text in rows.items())]
        if notes := [*_notes(loop)]:
            lines += ["", *notes]
    if not now["loops"]:
        lines.append("no loop is open")
    return "\n".join(lines)


def _watch(path: str) -> None:
    before, read_ns = None, 0
    while True:
        now = read(path)
        last_ns, read_ns = read_ns, time.monotonic_ns()
        text = _text(now, before, read_ns - last_ns)
        if sys.stdout.isatty():
            columns, rows = shutil.get_terminal_size()
            lines = [line[:columns] for line in text.split("\n")]
            text = "\x1b[H\x1b[2J" + "\n".join(lines[: rows - 1])
        print(text, flush=True)
        before = now
        time.sleep(_INTERVAL_S)


def main(words: list[str]) -> int:
    """Show the metrics of a process; return 0, or raise Refused."""
    parser = parser_of(
        "top",
        "The process must have a metrics socket: docs/seeing-inside.md.",
    )
    add = parser.add_argument
    add("target", help="the pid of a process, or the path of its socket")
    add("--once", action="store_true", help="show it once and end")
    add("--json", action="store_true", help="once, as JSON, in nanoseconds")
    args = parser.parse_args(words)
    path = find(args.target)
    if args.json:
        found = read(path)
        for loop in found["loops"]:
            loop["metrics"] = loop["metrics"].to_dict()
        print(json.dumps(found))
    elif args.once:
        print(_text(read(path), None))
    else:
        _watch(path)
    return 0
