"""How late answers are under load, from an open loop.

Messages are due at fixed times, so that a stall is charged to all that it
delays ("coordinated omission"); what the generator is late itself is not.  The
load is 70 % of what this very loop can take, which is measured first on the
same server; it stands beside.

One stall of the machine makes a p99.  So there are many short measurements,
and the median of their p99s stands for a loop.
"""

from __future__ import annotations

import statistics

from harness import network
from harness.case import Case, Figure, LoopFactory, Row, Run, figure
from harness.loops import SERVER_LOOPS

ORDER = 118
LOAD = {"connections": 64, "size": 1024}
PART = 0.7
# Short measurements of a server, one after the other.
TAKES = 3
NAMES = {"p50": "p50", "p99": "p99", "p999": "p99.9"}
TITLE = "TCP echo of 1 KiB, 70 % of the saturating load"


def measure(_: LoopFactory, run: Run) -> dict[str, Figure]:
    command = network.server_command(run, "plain.py", ["--mode=protocol"])
    short = Run(run.loop, run.seconds / TAKES)
    with network.serving(command) as server:
        most = network.load(server, short, **LOAD)
        rate = PART * most["rate"]["figure"]
        takes = [
            network.late(server, short, rate=rate, **LOAD)
            for _ in range(TAKES)
        ]
    found = {"tail_rate": figure([rate])}
    for part in NAMES:
        each = [take[part] for take in takes]
        # Not samples, which are compared one by one: no other loop's turn
        # was between two of them.
        middle = {"figure": statistics.median(each), "takes": each}
        found[f"tail_{part}"] = middle
    return found


CASES = (
    Case(
        "tail",
        "tail",
        (
            *(
                Row(f"tail_{part}", f"{TITLE}, {name}", "us")
                for part, name in NAMES.items()
            ),
            Row("tail_rate", "the load", "1/s", aside=True),
        ),
        measure,
        loops=SERVER_LOOPS,
        seconds=3.0,
        rounds=2,
        loaded=True,
    ),
)
