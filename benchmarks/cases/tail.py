"""How late answers are under load; README.md has the method."""

from __future__ import annotations

import statistics
from functools import partial

from harness import network
from harness.case import Case, Figure, LoopFactory, Row, Run, figure
from harness.loops import SERVER_LOOPS

ORDER = 118
LOAD = {"connections": 64, "size": 1024}
# Short measurements of a server, one after the other.
TAKES = 3
NAMES = {"p50": "p50", "p99": "p99", "p999": "p99.9"}


def tail(
    key: str, title: str, names: str, mode: str, part: float, workers: int = 0
) -> Case:
    """Return the case of a server under `part` of what it can take."""

    def measure(_: LoopFactory, run: Run) -> dict[str, Figure]:
        short = Run(run.loop, run.seconds / TAKES)
        started = partial(network.serving, run, "plain.py", f"--mode={mode}")
        with started() as server:
            most = network.load(server, short, **LOAD)
        rate = part * most["rate"]["figure"] * max(1, workers)
        load = {**LOAD, "rate": rate, "sleeps": int(workers > 0)}
        takes = []
        with started(f"--workers={workers}") as server:
            for _ in range(TAKES):
                with network.generator(server, short, load) as window:
                    takes.append(window())
        found = {f"{key}_rate": figure([rate])}
        for name in names.split():
            each = [take[name] for take in takes]
            # Not samples, which are compared one by one: no other loop's turn
            # was between two of them.
            middle = {"figure": statistics.median(each), "takes": each}
            found[f"{key}_{name}"] = middle
        return found

    rows = [
        Row(f"{key}_{name}", f"{title}, {NAMES[name]}", "us")
        for name in names.split()
    ]
    rows.append(Row(f"{key}_rate", f"{title}, rate", "1/s", aside=True))
    return Case(
        key,
        "tail",
        tuple(rows),
        measure,
        loops=SERVER_LOOPS,
        seconds=3.0,
        rounds=2,
        loaded=True,
    )


CASES = (
    tail(
        "tail",
        "TCP echo of 1 KiB, 70 % of the saturating load",
        "p50 p99 p999",
        "protocol",
        0.7,
    ),
    tail(
        "workers_tail",
        "two workers, 60 % of their saturating load",
        "p99",
        "work",
        0.6,
        workers=2,
    ),
)
