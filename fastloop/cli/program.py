"""Measures a program: one run from the start of its process to its end."""

from __future__ import annotations

import json
from typing import Any

from .commands import Refused
from .processes import Child, Processes, worker_command
from .run import Program

__all__ = ["ProgramRace", "Race"]


class Race:
    """What the kinds of races share.

    Each has kind, metrics (key, title, unit, which is better; the first is
    spoken of), title, how, notes, warm() and measure().
    """

    def __init__(self, processes: Processes) -> None:
        self._processes = processes
        self._report = processes.folder / "report.json"
        #: Loops that a run made by asyncio's default, by kind of loop.
        self.made: dict[str, int] = {}

    def _sample(self) -> None:
        """Have a run on asyncio report what a sampler sees."""
        raise NotImplementedError

    def share(self) -> float | None:
        """Return the loop's share of the CPU time on asyncio, 0 to 1.

        None where that cannot be seen: the program fails when it is looked
        at, writes no report, or was not seen to run a loop.
        """
        try:
            self._sample()
        except Refused:
            return None
        report = self._read()
        if not report.get("seen") or not report["total"]:
            return None
        return min(1.0, float(report["loop"] / report["total"]))

    def _read(self) -> dict[str, Any]:
        """Return the report; {} where a program ended by os._exit."""
        there = self._report.exists()
        return json.loads(self._report.read_text()) if there else {}


class ProgramRace(Race):
    """What `bench prog.py` measures."""

    kind = "program"
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
        super().__init__(processes)
        self.program = program
        self.title = str(program)
        self.notes: list[str] = []

    def warm(self, kind: str) -> float:
        """Measure once, for the caches; return the seconds of a run."""
        return self.measure(kind)["time"]

    def measure(self, kind: str) -> dict[str, float]:
        """Run it once on a kind of loop; return the figures."""
        child = self._run(kind, "time")
        report = self._read()
        self.made[kind] = report.get("made", 1)  # no report: unknown
        figures = {"time": child.seconds, "cpu": child.cpu}
        if report.get("memory"):
            figures["memory"] = report["memory"] / 2**20
        return figures

    def _run(self, kind: str, mode: str) -> Child:
        self._report.unlink(missing_ok=True)
        words = self.program.command()
        child = self._processes.start(
            worker_command("worker", kind, mode, self._report, *words)
        )
        child.wait()
        if child.status != 0:
            raise Refused(child.failure(f"{self.title} on {kind}"))
        child.end()
        return child

    def _sample(self) -> None:
        self._run("asyncio", "sample")
