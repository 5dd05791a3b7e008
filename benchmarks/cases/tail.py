"""How late answers are under load, from an open loop.

Messages are due at fixed times, so that a stall is charged to all that it
delays ("coordinated omission"); what the generator is late itself is not.  The
load of the first case is 70 % of what this very loop can take, which is
measured first on the same server; it stands beside.

One stall of the machine makes a p99.  So there are many short measurements,
and the median of their p99s stands for a loop.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from harness import network
from harness.case import Case, Figure, LoopFactory, Row, Run, figure, whole
from harness.loops import SERVER_LOOPS, TLS_LOOPS

ORDER = 118
KIB = 1024
PART = 0.7
# Short measurements of a server, one after the other.
TAKES = 3
ROUNDS = 2

# Of the time, the load's warm-up included, in which things are counted.
COUNTED = 1.3
NAMES = {"p50": "p50", "p99": "p99", "p999": "p99.9"}


def late_rows(
    key: str, title: str, parts: Sequence[str], aside: bool = False
) -> list[Row]:
    names = {part: f"{key}_{part}" for part in parts}
    return [
        Row(
            name,
            f"{title}, {NAMES[part]}",
            "us",
            aside=aside,
        )
        for part, name in names.items()
    ]


def tail_case(
    key: str,
    title: str,
    options: Sequence[str],
    load: dict[str, Any],
    parts: Sequence[str] = ("p50", "p99"),
    *,
    beside: tuple[str, Row] | None = None,
    baseline: dict[str, Any] | None = None,
) -> Case:
    """Return the case of one open loop.

    A `rate` of 0 in `load` stands for 70 % of what saturates the server.
    `beside` is another thing that the generator tells, and its row;
    `baseline` changes the load for rows "alone" that are measured first.
    """
    alone = f"{key}_alone"
    rows = late_rows(key, title, parts)
    if beside:
        rows.append(beside[1])
    if not load["rate"]:
        rows.append(Row(f"{key}_rate", "the load", "1/s", "more", aside=True))
    if baseline is not None:
        rows += late_rows(alone, f"{title}, without", parts, True)

    def measure(_: LoopFactory, run: Run) -> dict[str, Figure]:
        command = network.server_command(run, "echo.py", options)
        short = Run(run.loop, run.seconds / TAKES)
        given, found = dict(load), {}
        with network.serving(command) as server:

            def take(key: str, **changes: Any) -> list[dict[str, Any]]:
                answers = [
                    network.generate(
                        "tail_load", server, short, **{**given, **changes}
                    )
                    for _ in range(TAKES)
                ]
                for part in parts:
                    each = (answer[part] for answer in answers)
                    found[f"{key}_{part}"] = whole(figure(each))
                return answers

            if not given["rate"]:
                size = {name: load[name] for name in ("connections", "size")}
                most = network.load("echo_load", server, short, **size)
                given["rate"] = PART * most["rate"]["figure"]
                found[f"{key}_rate"] = figure([given["rate"]])
            if baseline is not None:
                take(alone, **baseline)
            answers = take(key)
        if beside:
            name, row = beside
            counted = short.seconds * COUNTED
            found[row.key] = whole(
                figure(one[name] / counted for one in answers)
            )
        return found

    return Case(
        key,
        "tail",
        tuple(rows),
        measure,
        loops=TLS_LOOPS if load.get("tls") else SERVER_LOOPS,
        seconds=3.0,
        rounds=ROUNDS,
        programs=("tail_load", "echo_load"),
    )


CASES = (
    tail_case(
        "tail",
        "TCP echo of 1 KiB, 70 % of the saturating load",
        ["--mode=protocol"],
        {"connections": 64, "size": KIB, "rate": 0},
        ("p50", "p99", "p999"),
    ),
    tail_case(
        "tail_chain",
        "TCP echo behind a CPU-bound call_soon chain",
        ["--mode=protocol", "--chain"],
        {"connections": 8, "size": 64, "rate": 2_000},
    ),
    tail_case(
        "tail_bulky",
        "1,000 small connections beside a bulky one",
        ["--mode=protocol"],
        {"connections": 1_000, "size": 64, "rate": 5_000, "bulky": 1},
        beside=(
            "bulky_mib",
            Row(
                "tail_bulky_mib",
                "the bulky connection's share",
                "MiB/s",
                "more",
                aside=True,
            ),
        ),
        baseline={"bulky": 0},
    ),
    tail_case(
        "tail_storm",
        "64 TLS connections beside 200 handshakes a second",
        ["--mode=protocol", "--tls"],
        {
            "connections": 64,
            "size": KIB,
            "rate": 2_000,
            "tls": 1,
            "storm": 200,
        },
        beside=(
            "handshakes",
            Row(
                "tail_storm_rate",
                "handshakes of the storm",
                "1/s",
                "more",
                aside=True,
            ),
        ),
        baseline={"storm": 0},
    ),
)
