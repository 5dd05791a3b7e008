"""Measures a program: one run from the start of its process to its end."""

from __future__ import annotations

import json
from typing import Any

from . import Refused
from .processes import Child, Processes, worker_command
from .run import Program

__all__ = ["ProgramRace", "share_of"]


class ProgramRace:
    """What `bench prog.py` measures; `HttpRace` is alike."""

    kind = "program"
    #: key, title, unit, which is better; the first is spoken of.
    metrics = (
        ("time", "time", "s", "less"),
        ("cpu", "CPU time", "s", "less"),
        ("memory", "peak memory", "MiB", "less"),
    )
    how = (
        "Time runs from the start of the program's process to its end, so the "
        "start of Python and imports are in it; CPU time (children included) "
        "and peak memory are what the system counted for that process."
    )

    def __init__(self, program: Program, processes: Processes) -> None:
        self.program = program
        self._processes = processes
        self._report = processes.folder / "report.json"
        #: Loops that a run made by asyncio's default, by kind of loop.
        self.made: dict[str, int] = {}
        self.notes: list[str] = []

    @property
    def title(self) -> str:
        """The program as it was named."""
        return str(self.program)

    def warm(self, kind: str) -> float:
        """Measure once, for the caches; return the seconds of a run."""
        return self.measure(kind)["time"]

    def measure(self, kind: str) -> dict[str, float]:
        """Run it once on a kind of loop; return the figures.

        Raises Refused if it fails.
        """
        child, report = self._run(kind, "time")
        self.made[kind] = report.get("made", 1)  # no report: unknown
        figures = {"time": child.seconds, "cpu": child.cpu}
        if report.get("memory"):
            figures["memory"] = report["memory"] / 2**20
        return figures

    def _run(self, kind: str, mode: str) -> tuple[Child, dict[str, Any]]:
        self._report.unlink(missing_ok=True)
        words = self.program.command()
        child = self._processes.start(
            worker_command("worker", kind, mode, self._report, *words)
        )
        child.wait()
        if child.status != 0:
            raise Refused(child.failure(f"{self.title} on {kind}"))
        child.end()
        # A program that ends by os._exit writes no report.
        there = self._report.exists()
        return child, json.loads(self._report.read_text()) if there else {}

    def share(self) -> float | None:
        """Return the loop's share of the CPU time on asyncio, 0 to 1.

        None where that cannot be seen: the program fails when it is looked
        at, writes no report, or was not seen to run a loop.
        """
        try:
            _, report = self._run("asyncio", "sample")
        except Refused:
            return None
        return share_of(report)


def share_of(report: dict[str, Any]) -> float | None:
    """Return the share that a sampler's report tells, or None."""
    if not report.get("seen") or not report["total"]:
        return None
    return min(1.0, float(report["loop"] / report["total"]))
