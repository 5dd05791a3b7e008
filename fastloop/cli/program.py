"""Measures a program: one run from the start of its process to its end."""

from __future__ import annotations

import os
from ast import literal_eval
from collections.abc import Callable
from typing import Any

from .commands import Refused
from .options import listed
from .processes import Child, Processes, worker_command
from .run import Program
from .worker import MADE, SERVES

__all__ = ["ProgramRace", "Race"]

#: Runs that are sampled at most, looks at the stack that are enough, and
#: those without which nothing is said.
_SAMPLES = 4
_ENOUGH_LOOKS, _FEWEST_LOOKS = 250, 50


class Race:
    """What the kinds of races share.

    Each has kind, metrics (key, title, unit, which is better; the first is
    spoken of), title, how, notes, settings, warm() and measure().
    """

    def __init__(self, processes: Processes) -> None:
        self._processes = processes
        self._report, self._mark, self._serves = (
            processes.folder / f"report.json{end}"
            for end in ("", MADE, SERVES)
        )
        #: Whether a run made a loop by asyncio's default, by kind of loop;
        #: None if the program could not say.
        self.made: dict[str, bool | None] = {}
        #: Whether the run's process had a GIL at its end.
        self.gil: dict[str, bool] = {}

    @property
    def left(self) -> list[str]:
        """Name the processes that outlived the program, if there are any."""
        if not self._processes.left:
            return []
        names = listed(sorted(self._processes.left))
        return [
            f"The program left processes behind ({names}): bench ended them, "
            "and no figure includes them."
        ]

    def _sample(self) -> None:
        """Have a run on asyncio report what a sampler sees."""
        raise NotImplementedError

    def share(self) -> float | None:
        """Return the loop's share of the CPU time on asyncio, 0 to 1.

        None where that cannot be seen: the program fails when it is looked
        at, writes no report, or runs asyncio's loop too briefly for that.
        """
        loop = total = looks = 0.0
        for _ in range(_SAMPLES):
            try:
                self._sample()
            except Refused:
                return None
            if not self._took_loop():
                return None  # it ran another loop, or none
            report = self._read()
            loop += report.get("loop", 0)
            total += report.get("total", 0)
            looks += report.get("looks", 0)
            if not looks or looks >= _ENOUGH_LOOKS:
                break
        return min(1.0, loop / total) if looks >= _FEWEST_LOOKS else None

    def _forget(self) -> None:
        """Empty what an earlier run has written.

        A program that gives up root's rights can write to a file, but make
        none.
        """
        for path in (self._report, self._mark, self._serves):
            path.write_bytes(b"")
            if os.geteuid() == 0:
                path.chmod(0o666)

    def _read(self) -> dict[str, Any]:
        """Return the report; {} where a program ended by os._exit."""
        text = self._report.read_text()
        return literal_eval(text) if text else {}

    def _note_end(self, kind: str) -> dict[str, Any]:
        """Note what a run on a kind of loop said; return its report."""
        report = self._read()
        self.made[kind] = self._took_loop()
        if report:
            self.gil[kind] = report["gil"]
        return report

    def _took_loop(self) -> bool | None:
        """Whether asyncio's default made a loop; None if nothing says so."""
        if self._mark.stat().st_size:
            return True
        return False if self._report.stat().st_size else None


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
        "the program makes its first loop. CPU time (children included) "
        "and peak memory are what the system counted for that process."
    )

    def __init__(
        self,
        program: Program,
        processes: Processes,
        limit: float,
        tell: Callable[[str], None],
    ) -> None:
        super().__init__(processes)
        self.program = program
        self.title = " ".join(str(program).split())  # code has lines
        self.notes: list[str] = []
        self.settings: dict[str, str] = {}
        self._limit = limit
        self._tell = tell
        #: Where the program listened when it was last looked at.
        self._port: int | None = None
        self._told = False

    def warm(self, kind: str) -> float:
        """Measure once, for the caches; return the seconds of a run."""
        return self.measure(kind)["time"]

    def measure(self, kind: str) -> dict[str, float]:
        """Run it once on a kind of loop; return the figures."""
        child = self._run(kind, "time")
        report = self._note_end(kind)
        figures = {"time": child.seconds, "cpu": child.cpu}
        if made := self._mark.read_text().partition("\n")[0]:
            left = child.began + child.seconds - float(made)
            if left > 0:
                figures["loop"] = left
        if report.get("memory"):
            figures["memory"] = report["memory"] / 2**20
        return figures

    def _run(self, kind: str, mode: str) -> Child:
        self._forget()
        words = self.program.command()
        child = self._processes.start(
            worker_command("worker", kind, mode, self._report, *words)
        )
        self._port = None
        child.finish(self._limit, lambda: self._look(child))
        if child.is_late:
            raise Refused(
                f"{self.title} on {kind} did not end in {self._limit:g} s, "
                "which --timeout sets"
            )
        if child.status != 0:
            raise Refused(child.failure(f"{self.title} on {kind}"))
        child.end()
        return child

    def _look(self, child: Child) -> None:
        """Tell once of a program that listens, for longer than a test does."""
        before, self._port = self._port, child.port()
        if self._port and self._port == before and not self._told:
            self._told = True
            self._tell(
                f"{self.title} listens on port {self._port}: if it is a "
                "server, which does not end by itself, measure it with "
                "`bench --http module:app`"
            )

    def _sample(self) -> None:
        self._run("asyncio", "sample")
