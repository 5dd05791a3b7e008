"""Measures a program: one run from the start of its process to its end."""

from ast import literal_eval
from typing import Any

from .commands import Refused
from .processes import Processes, worker_command
from .run import Program
from .worker import RAN


class Race:
    """What the kinds of races share.

    Each has kind, metrics (key, title, unit, which is better; the first is
    spoken of), title, notes, settings, warm() and measure().
    """

    def __init__(self, processes: Processes) -> None:
        self._processes = processes
        self._report = processes.folder / "report"
        self._mark = processes.folder / f"report{RAN}"
        #: Whether a loop of the kind ran, by kind.
        self.ran: dict[str, bool] = {}
        #: Whether the run's process had a GIL at its end.
        self.gil: dict[str, bool] = {}

    def _forget(self) -> None:
        """Empty what an earlier run has written."""
        for path in (self._report, self._mark):
            path.write_bytes(b"")

    def _note_end(self, kind: str) -> dict[str, float]:
        """Note what a run on a kind of loop reported; return its memory.

        That is {} where a program ended by os._exit.
        """
        text = self._report.read_text()
        report: dict[str, Any] = literal_eval(text) if text else {}
        self.ran[kind] = self._mark.stat().st_size > 0
        if report:
            self.gil[kind] = report["gil"]
        if not report.get("memory"):
            return {}
        return {"memory": report["memory"] / 2**20}


class ProgramRace(Race):
    """What `bench prog.py` measures.

    Time runs from the start of the program's process to its end, and start-up
    is what passes until the program's first loop runs.
    """

    kind = "program"
    metrics = (
        ("time", "time", "s", "less"),
        ("loop", "without start-up", "s", "less"),
        ("cpu", "CPU time", "s", "less"),
        ("memory", "peak memory", "MiB", "less"),
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
            worker_command("worker.run_program", kind, self._report, *words)
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
        figures = {"time": child.seconds, "cpu": child.cpu}
        if ran := self._mark.read_text().partition("\n")[0]:
            left = child.began + child.seconds - float(ran)
            if left > 0:
                figures["loop"] = left
        return figures | self._note_end(kind)
