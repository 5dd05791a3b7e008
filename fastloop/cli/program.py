"""Measures a program: one run from the start of its process to its end."""

from __future__ import annotations

import os
from ast import literal_eval
from typing import Any

from .commands import Refused
from .processes import Processes, worker_command
from .run import Program
from .worker import RAN, SERVES

__all__ = ["ProgramRace", "Race"]


class Race:
    """What the kinds of races share.

    Each has kind, metrics (key, title, unit, which is better; the first is
    spoken of), title, how, notes, settings, warm() and measure().
    """

    def __init__(self, processes: Processes) -> None:
        self._processes = processes
        self._report, self._mark, self._serves = (
            processes.folder / f"report.json{end}" for end in ("", RAN, SERVES)
        )
        if os.geteuid() == 0:  # for programs that give up root's rights
            processes.folder.chmod(0o711)
        #: Whether a loop of the kind ran, by kind; None if the program could
        #: not say.
        self.ran: dict[str, bool | None] = {}
        #: Whether the run's process had a GIL at its end.
        self.gil: dict[str, bool] = {}

    def _forget(self) -> None:
        """Empty what an earlier run has written.

        A program that gives up root's rights can write to a file, but make
        none.
        """
        for path in (self._report, self._mark, self._serves):
            path.write_bytes(b"")
            if os.geteuid() == 0:
                path.chmod(0o666)

    def _note_end(self, kind: str) -> dict[str, Any]:
        """Note what a run on a kind of loop reported, and return that.

        It is {} where a program ended by os._exit.
        """
        text = self._report.read_text()
        report: dict[str, Any] = literal_eval(text) if text else {}
        ran = self._mark.stat().st_size > 0
        self.ran[kind] = ran or (False if report else None)
        if report:
            self.gil[kind] = report["gil"]
        return report


class ProgramRace(Race):
    """What `bench prog.py` measures."""

    kind = "program"
    metrics = (
        ("time", "time", "s", "less"),
        ("loop", "without start-up", "s", "less"),
        ("cpu", "CPU time", "s", "less"),
        ("memory", "peak memory", "MiB", "less"),
    )
    how = (
        "Time runs from the start of the program's process to its end, so the "
        "start of Python and imports are in it. Start-up is what passes until "
        "the program's first loop runs. CPU time (children included) "
        "and peak memory are what the system counted for that process."
    )

    def __init__(
        self, program: Program, processes: Processes, limit: float
    ) -> None:
        super().__init__(processes)
        self.program = program
        self.title = " ".join(str(program).split())  # code has lines
        self.notes: list[str] = []
        self.settings: dict[str, str] = {}
        self._limit = limit

    def warm(self, kind: str) -> float:
        """Measure once, for the caches; return the seconds of a run."""
        return self.measure(kind)["time"]

    def measure(self, kind: str) -> dict[str, float]:
        """Run it once on a kind of loop; return the figures."""
        self._forget()
        words = self.program.command()
        child = self._processes.start(
            worker_command("worker", kind, self._report, *words)
        )
        status = child.finish(self._limit)
        if child.seconds > self._limit:
            raise Refused(
                f"{self.title} on {kind} did not end in {self._limit:g} s, "
                "which --timeout sets; a server, which does not end by "
                "itself, is measured with `bench --http module:app`"
            )
        if status != 0:
            raise Refused(child.failure(f"{self.title} on {kind}"))
        child.end()
        report = self._note_end(kind)
        figures = {"time": child.seconds, "cpu": child.cpu}
        if ran := self._mark.read_text().partition("\n")[0]:
            left = child.began + child.seconds - float(ran)
            if left > 0:
                figures["loop"] = left
        if report.get("memory"):
            figures["memory"] = report["memory"] / 2**20
        return figures
