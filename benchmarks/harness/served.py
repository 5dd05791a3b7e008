"""Cases of a server that is loaded: one server, one or more loads of it.

A server process is started once for a measurement and loaded once for each
of the case's loads, so that the start is not paid for each.
"""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from harness import network
from harness.case import Case, Figure, LoopFactory, Row, Run, figure
from harness.loops import SERVER_LOOPS, TLS_LOOPS

# A generator of bytes counts KiB, its rows are in MiB.
KIB_A_MIB = 1024


@dataclass(frozen=True)
class Load:
    """A load: the key and the title of its rows, and the options of the
    generator.  `bulk` ones are judged by MiB a second, others by the
    server's CPU time for an answer.
    """

    key: str
    title: str
    options: dict[str, Any] = field(default_factory=dict)
    bulk: bool = False

    def rows(self) -> tuple[Row, Row]:
        """Return the row that is judged, and the one beside it."""
        cpu, rate = f"{self.title}, server CPU", f"{self.title}, rate"
        if self.bulk:
            return (
                Row(self.key, rate, "MiB/s", "more"),
                Row(
                    f"{self.key}_cpu", cpu, "us/MiB", judge="least", aside=True
                ),
            )
        return (
            Row(self.key, cpu, "us", judge="least"),
            Row(f"{self.key}_rate", rate, "1/s", "more", aside=True),
        )

    def figures(self, found: dict[str, Figure]) -> dict[str, Figure]:
        """Return the figures of the rows."""
        first, second = self.rows()
        cpu, rate = found["cpu"], found["rate"]
        if self.bulk:
            rate = times(rate, 1 / KIB_A_MIB)
            return {first.key: rate, second.key: times(cpu, KIB_A_MIB)}
        return {first.key: cpu, second.key: rate}


def times(one: Figure, factor: float) -> Figure:
    """Return a figure in another unit."""
    new = figure(sample * factor for sample in one["samples"])
    new["figure"] = one["figure"] * factor
    return new


def size_name(size: int) -> str:
    """Return a size for a title."""
    return f"{size // 1024} KiB" if size >= 1024 else f"{size} B"


def load_key(connections: int, size: int) -> str:
    """Return the part of a key that says what the load is."""
    short = f"{size // 1024}k" if size >= 1024 else f"{size}b"
    return f"{connections}x{short}"


def served_case(
    name: str,
    group: str,
    script: str,
    options: Sequence[str],
    loads: Sequence[Load],
    *,
    unix: bool = False,
    seconds: float = 1.0,
    tls: bool = False,
    packages: tuple[str, ...] = (),
) -> Case:
    """Return the case of `script`, started with `options` on each loop."""

    def measure(_: LoopFactory, run: Run) -> dict[str, Figure]:
        with tempfile.TemporaryDirectory() as folder:
            more, given = list(options), {"tls": int(tls)}
            if unix:
                given["unix"] = str(Path(folder) / "socket")
                more.append(f"--unix={given['unix']}")
            command = network.server_command(run, script, more)
            found: dict[str, Figure] = {}
            with network.serving(command) as server:
                for load in loads:
                    answer = network.load(server, run, **given, **load.options)
                    found |= load.figures(answer)
            return found

    return Case(
        name,
        group,
        tuple(row for load in loads for row in load.rows()),
        measure,
        loops=TLS_LOOPS if tls else SERVER_LOOPS,
        seconds=seconds,
        loaded=True,
        packages=packages,
    )
