"""Servers and load generators as child processes, each on its own CPU.

A server is pinned to the last CPU this process may use and the generator to
the first, so that the one never takes time from the other.  The server's
CPU time is read by the generator, where each of its windows begins and ends.
"""

from __future__ import annotations

import json
import os
import select
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from harness import build
from harness.case import Figure, Run, figure

SERVERS = Path(__file__).resolve().parents[1] / "servers"
# That a server or a generator hangs; a busy machine needs a part of it.
START_LIMIT = 60.0
END_LIMIT = 5.0
WINDOWS = 4


def cpus() -> tuple[int, int]:
    """Return the CPUs of the server and of the load generator."""
    usable = sorted(os.sched_getaffinity(0))
    return usable[-1], usable[0]


def server_command(run: Run, script: str, options: Sequence[str]) -> list[str]:
    """Return the command that starts the server `script` on a run's loop.

    Where the run counts, the command counts the server.
    """
    command = [
        sys.executable,
        str(SERVERS / script),
        f"--loop={run.loop}",
        f"--cpu={cpus()[0]}",
        *options,
    ]
    return run.counter.command(command) if run.counter else command


def _first_line(process: subprocess.Popen) -> str:
    """Return the first line a server prints, or fail in due time."""
    assert process.stdout is not None
    end = time.monotonic() + START_LIMIT
    text = b""
    while not text.endswith(b"\n"):
        left = end - time.monotonic()
        if not select.select([process.stdout], [], [], max(0, left))[0]:
            raise TimeoutError("the server did not start")
        part = os.read(process.stdout.fileno(), 4096)
        if not part:
            raise RuntimeError("the server ended before it listened")
        text += part
    return text.decode()


@contextmanager
def running(
    command: list[str], **options: Any
) -> Iterator[subprocess.Popen[bytes]]:
    """Start a process; end it with the with-block."""
    process = subprocess.Popen(command, stdin=subprocess.DEVNULL, **options)
    try:
        yield process
    finally:
        process.terminate()
        try:
            process.wait(END_LIMIT)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
        if process.stdout is not None:
            process.stdout.close()


@contextmanager
def serving(command: list[str]) -> Iterator[dict[str, Any]]:
    """Run a server for the length of a with-block; give what it announced.

    One that ends by itself is an error, which says what it said last.
    """
    with (
        tempfile.TemporaryFile() as said,
        running(command, stdout=subprocess.PIPE, stderr=said) as process,
    ):
        try:
            yield json.loads(_first_line(process))
            if process.poll() is not None:
                raise RuntimeError("the server ended under load")
        except RuntimeError as error:
            try:
                process.wait(0.5)
            except subprocess.TimeoutExpired:
                raise error from None
            said.seek(0)
            lines = said.read().decode(errors="replace").strip().splitlines()
            last = lines[-1] if lines else "nothing"
            raise RuntimeError(f"{error}; it said: {last}") from error


def _command(
    server: dict[str, Any], run: Run, options: dict[str, Any]
) -> list[str]:
    given = {
        "port": server["port"],
        "server": server["pid"],
        "cpu": cpus()[1],
        "seconds": run.seconds,
        "warmup": 0.3 * run.seconds,
        **options,
    }
    words = (str(word) for key in given for word in (f"--{key}", given[key]))
    return [str(build.path()), *words]


def _read(line: bytes) -> dict[str, Any]:
    answer = json.loads(line)
    if not answer["answered"]:
        raise RuntimeError("the server answered nothing")
    return answer


def late(server: dict[str, Any], run: Run, **options: Any) -> dict[str, Any]:
    """Load a server by the clock; return the percentiles of the latencies."""
    try:
        done = subprocess.run(
            _command(server, run, options),
            capture_output=True,
            timeout=START_LIMIT + 2 * run.seconds,
        )
    except subprocess.TimeoutExpired:
        # Its own words have the command's paths.
        raise RuntimeError("the load generator did not end") from None
    if done.returncode:
        raise RuntimeError(
            done.stderr.decode().strip() or "the load generator failed"
        )
    return _read(done.stdout)


def load(
    server: dict[str, Any], run: Run, **options: Any
) -> dict[str, Figure]:
    """Load a server; return its CPU time per answer and answers a second.

    "cpu" is in microseconds, "rate" in answers per second, or both are counts;
    a sample of both is a window.  The connections stay open from one window to
    the next.
    """
    window = Run(run.loop, run.seconds / WINDOWS)
    if run.counter:
        window.seconds = run.seconds
        run.counter.start(server["pid"])
        options["warmup"] = 0  # its messages would be counted
    windows = []
    with subprocess.Popen(
        _command(server, window, options),
        bufsize=0,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    ) as process:
        assert process.stdin and process.stdout and process.stderr
        try:
            for _ in run.repeat(WINDOWS):
                process.stdin.write(b"\n")
                windows.append(_read(process.stdout.readline()))
                if run.counter:
                    counted = run.counter.more_when_idle()
                    windows[-1]["cpu"] = windows[-1]["seconds"] = counted / 1e9
            if run.counter:
                del windows[0]  # the connections were made meanwhile
        except (OSError, ValueError):  # it has ended
            said = process.stderr.read().decode().strip()
            raise RuntimeError(said or "the load generator failed") from None
    cpu = figure(one["cpu"] / one["answered"] * 1e6 for one in windows)
    rate = figure(one["answered"] / one["seconds"] for one in windows)
    return {"cpu": cpu, "rate": rate}
