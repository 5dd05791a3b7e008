"""Workers behind one socket, which the kernel wakes and a loop accepts for."""

from __future__ import annotations

import os
import statistics
import subprocess
import sys
import time
from contextlib import ExitStack, suppress
from pathlib import Path

from cases.idle import connected
from harness import network
from harness.case import (
    Case,
    Figure,
    LoopFactory,
    Row,
    Run,
    figure,
    simple_case,
)
from harness.loops import SERVER_LOOPS

ORDER = 117
WORKERS = 4
SERVER = "--mode=protocol", f"--workers={WORKERS}"
CONNECTIONS = 200
#: The worker that accepted the last one has gone to sleep.
APART_S = 0.002
#: A program that computes until this process ends.
COMPUTES = "import os; us = os.getppid()\nwhile os.getppid() == us: pass"
#: For so long they have computed when the first connection comes.
BUSY_S = 2
THREADS = {
    "one": ("one thread", ("--workers=1", "--threads")),
    "two": ("two threads", ("--workers=2", "--threads")),
    "processes": ("two processes", ("--workers=2",)),
}


def socket_count(pid: int) -> int:
    count = 0
    for link in Path(f"/proc/{pid}/fd").iterdir():
        with suppress(FileNotFoundError):
            count += os.readlink(link).startswith("socket:")
    return count


@simple_case(
    "workers_share",
    "four workers: the most loaded one's share",
    "of even",
    "workers",
    loops=SERVER_LOOPS,
)
def share(_: LoopFactory, run: Run) -> Figure:
    with network.serving(run, "plain.py", *SERVER) as server:
        pid = server["pid"]
        children = Path(f"/proc/{pid}/task/{pid}/children").read_text()
        workers = [int(child) for child in children.split()]
        before = [socket_count(worker) for worker in workers]
        clients = []
        for _ in range(CONNECTIONS):
            clients += connected(server, 1, None)
            time.sleep(APART_S)
        most = max(map(int.__sub__, map(socket_count, workers), before))
        for client in clients:
            client.close()
    return figure([most / CONNECTIONS * WORKERS])


@simple_case(
    "workers_busy",
    "four workers, all CPUs busy: the first answer, p99",
    "ms",
    "workers",
    loops=SERVER_LOOPS,
)
def busy(_: LoopFactory, run: Run) -> Figure:
    waits_ms = []
    with ExitStack() as stack:
        server = stack.enter_context(network.serving(run, "plain.py", *SERVER))
        for _ in range(2 * (os.cpu_count() or 1)):
            program = subprocess.Popen([sys.executable, "-c", COMPUTES])
            stack.enter_context(program)
            stack.callback(program.kill)
        time.sleep(BUSY_S)
        for _ in range(CONNECTIONS):
            begin = time.perf_counter()
            (client,) = connected(server, 1, None)
            waits_ms.append((time.perf_counter() - begin) * 1e3)
            client.close()
            time.sleep(APART_S)
    return figure([statistics.quantiles(waits_ms, n=100)[-1]])


def in_threads(_: LoopFactory, run: Run) -> dict[str, Figure]:
    found = {}
    for name, (_, words) in THREADS.items():
        with network.serving(run, "web.py", "--app=plain", *words) as server:
            load = {"connections": 64, **network.requests(server)}
            measured = network.load(server, run, **load)
        found[f"two_threads_uvicorn_{name}"] = measured["rate"]
    return found


CASES = (
    share,
    busy,
    Case(
        "two_threads_uvicorn",
        "workers",
        tuple(
            Row(
                f"two_threads_uvicorn_{name}",
                f"uvicorn, requests a second by {title}",
                "1/s",
                aside=name != "two",
            )
            for name, (title, _) in THREADS.items()
        ),
        in_threads,
        loops=SERVER_LOOPS,
        seconds=1.5,
        loaded=True,
        packages=("uvicorn", "httptools"),
        free_threaded=True,
    ),
)
