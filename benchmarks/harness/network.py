"""Servers and load generators as child processes, each on its own CPU."""

from __future__ import annotations

import json
import os
import re
import socket
import ssl
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

from fastloop.cli.processes import Child
from harness import build
from harness.case import Figure, Run, figure

SERVERS = Path(__file__).resolve().parents[1] / "servers"
# That a server hangs; a busy machine needs a part of it.
START_LIMIT = 60.0
WINDOWS = 4
REQUEST = "GET / HTTP/1.1\r\nHost: 127.0.0.1\r\nAccept: */*\r\n\r\n"


def cpus() -> tuple[int, int]:
    """Return the CPUs of the server and of the load generator."""
    usable = sorted(os.sched_getaffinity(0))
    return usable[-1], usable[0]


def pin(place: int) -> None:
    """Keep this thread on the CPU at a place of those it may use; on Linux."""
    if sys.platform == "linux":
        os.sched_setaffinity(0, {sorted(os.sched_getaffinity(0))[place]})


@contextmanager
def running(command: list[str], **options: Any) -> Iterator[Child]:
    child = Child(command, Path(tempfile.gettempdir()), **options)
    try:
        yield child
    finally:
        child.stop()


@contextmanager
def serving(
    run: Run, script: str, *words: str, pinned: bool = True
) -> Iterator[dict[str, Any]]:
    """Run a server on a run's loop for a with-block; give what it announced.

    It runs on one CPU if it is `pinned`.

    Where the run counts, it counts the server.  A server that ends by itself
    is an error, which says what it said last.
    """
    own = [f"--loop={run.loop}", *[f"--cpu={cpus()[0]}"] * pinned]
    command = [sys.executable, str(SERVERS / script), *own, *words]
    if run.counter:
        command = run.counter.command(command)
    read, write = os.pipe()
    with open(read) as said, running(command, stdout=write) as child:
        os.close(write)
        try:
            # No limit here: the parent ends this process if it takes too long.
            line = said.readline()
            if not line:
                raise RuntimeError("the server ended before it listened")
            yield json.loads(line)
            if child.wait(0) is not None:
                raise RuntimeError("the server ended under load")
        except RuntimeError as error:
            if child.wait(0.5) is None:
                raise
            last = child.failure("it").splitlines()[-1].strip()
            raise RuntimeError(f"{error}; it said: {last}") from error


@contextmanager
def generator(
    server: dict[str, Any], run: Run, options: dict[str, Any]
) -> Iterator[Callable[[], dict[str, Any]]]:
    """Run the load generator; give what measures a window."""
    given = {
        "port": server["port"],
        "server": server["pid"],
        "seconds": run.seconds,
        "warmup": 0.3 * run.seconds,
        **options,
    }
    words = (str(word) for key in given for word in (f"--{key}", given[key]))
    with subprocess.Popen(
        [str(build.path()), *words],
        bufsize=0,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        preexec_fn=lambda: os.sched_setaffinity(0, {cpus()[1]}),
    ) as process:

        def window() -> dict[str, Any]:
            process.stdin.write(b"\n")
            answer = json.loads(process.stdout.readline())
            if not answer["answered"]:
                raise RuntimeError("the server answered nothing")
            return answer

        try:
            yield window
        except (OSError, ValueError):  # it has ended
            said = process.stderr.read().decode().strip()
            raise RuntimeError(said or "the load generator failed") from None


def load(
    server: dict[str, Any], run: Run, unit: int = 1, **options: Any
) -> dict[str, Figure]:
    """Load a server; return its CPU time per answer and answers a second.

    "cpu" is in microseconds, "rate" in answers per second, or both are counts;
    a sample of both is a window.  A `unit` is so many answers.  The
    connections stay open from one window to the next.
    """
    part = Run(run.loop, run.seconds / WINDOWS)
    if run.counter:
        part.seconds = run.seconds
        run.counter.start(server["pid"])
        options["warmup"] = 0  # its messages would be counted
    windows = []
    with generator(server, part, options) as window:
        for _ in run.repeat():
            windows.append(window())
            if run.counter:
                counted = run.counter.more_when_idle()
                windows[-1]["cpu"] = windows[-1]["seconds"] = counted / 1e9
        if run.counter:
            del windows[0]  # the connections were made meanwhile
    cpu = figure(one["cpu"] / one["answered"] * 1e6 * unit for one in windows)
    rate = figure(one["answered"] / one["seconds"] / unit for one in windows)
    return {"cpu": cpu, "rate": rate}


def requests(server: dict[str, Any], tls: bool = False) -> dict[str, Any]:
    """Ask a server of HTTP, or HTTPS, once; return the generator's options.

    All answers have the size of this one, for the words are the same.
    """
    address = ("127.0.0.1", server["port"])
    with ExitStack() as stack:
        client = socket.create_connection(address, START_LIMIT)
        stack.enter_context(client)
        if tls:
            context = ssl._create_unverified_context()
            client = stack.enter_context(context.wrap_socket(client))
        client.sendall(REQUEST.encode())
        with client.makefile("rb") as answer:
            head = b""
            while (line := answer.readline()) not in (b"", b"\r\n"):
                head += line
    length = re.search(rb"(?i)\ncontent-length: *(\d+)", head)
    if not length:
        raise RuntimeError(f"no content-length is in {head[:200]!r}")
    size = len(head) + len(line) + int(length[1])
    return {"request": REQUEST, "answer": size}
