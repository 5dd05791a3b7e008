"""Cases of a server that is loaded: a row that is judged, one beside it."""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from harness import network
from harness.case import Case, Figure, LoopFactory, Row, Run, figure
from harness.loops import SERVER_LOOPS, TLS_LOOPS

# The generator counts bytes that go one way in KiB, their rows are in MiB.
KIB_A_MIB = 1024


def scaled(one: Figure, factor: float) -> Figure:
    """Return a figure in another unit."""
    return figure(sample * factor for sample in one["samples"])


def rows_of(key: str, title: str, by: str) -> tuple[Row, Row]:
    """Return the row that is judged, and the one beside it."""
    cpu, rate = f"{title}, server CPU", f"{title}, rate"
    if by == "cpu":
        return (
            Row(key, cpu, "us", judge="least"),
            Row(f"{key}_rate", rate, "1/s", "more", aside=True),
        )
    units = ("MiB/s", "us/MiB") if by == "bytes" else ("1/s", "us")
    return (
        Row(key, rate, units[0], "more"),
        Row(f"{key}_cpu", cpu, units[1], judge="least", aside=True),
    )


def served(
    key: str,
    group: str,
    title: str,
    script: str,
    words: Sequence[str],
    load: dict[str, Any],
    *,
    by: str = "cpu",
    tls: bool = False,
    unix: bool = False,
    packages: tuple[str, ...] = (),
    daemons: tuple[str, ...] = (),
) -> Case:
    """Return the case of `script`, started with `words` on each loop.

    It is judged `by` the server's CPU time for an answer ("cpu"), the "rate"
    of answers, or the rate of "bytes" that go one way.  `load` are the
    generator's options.
    """
    first, second = rows_of(key, title, by)

    def measure(_: LoopFactory, run: Run) -> dict[str, Figure]:
        with tempfile.TemporaryDirectory() as folder:
            given, more = {"tls": int(tls), **load}, ["--tls"] * tls
            if unix:
                given["path"] = str(Path(folder) / "socket")
                more.append(f"--unix={given['path']}")
            command = network.server_command(run, script, [*more, *words])
            with network.serving(command) as server:
                if by == "rate":
                    given |= network.requests(server)
                found = network.load(server, run, **given)
        cpu, rate = found["cpu"], found["rate"]
        if by == "cpu":
            return {first.key: cpu, second.key: rate}
        if by == "bytes":
            cpu, rate = scaled(cpu, KIB_A_MIB), scaled(rate, 1 / KIB_A_MIB)
        return {first.key: rate, second.key: cpu}

    return Case(
        key,
        group,
        (first, second),
        measure,
        loops=TLS_LOOPS if tls else SERVER_LOOPS,
        seconds=1.5 if by == "rate" else 1.0,
        loaded=True,
        packages=packages,
        daemons=daemons,
    )
