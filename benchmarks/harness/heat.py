"""Alternates the loops of a case, sample by sample; README.md says why.

A worker pauses before each sample: it writes READY and reads a word.  GO lets
it take one sample, END ends the series.  A case may have several series.  A
case without pauses is measured whole at the first GO.
"""

from __future__ import annotations

import json
import select
import signal
import subprocess
import tempfile
import time
from collections.abc import Sequence
from contextlib import ExitStack, suppress
from pathlib import Path

from fastloop.cli.processes import Child

READY, GO, END = "ready", "go", "end"
#: The samples of a series, unless it takes longer than a worker's share.
MOST_SAMPLES, LEAST_SAMPLES = 10, 3
SHARE_S = 0.3


class Worker(Child):
    """A process that measures one loop."""

    def __init__(self, command: list[str], limit: float) -> None:
        """Start it; it has *limit* seconds for each of its steps."""
        pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE}
        folder = Path(tempfile.gettempdir())
        super().__init__(command, folder, bufsize=0, **pipes)
        self._limit = limit
        # Where memory runs short, the kernel ends it and not the race.
        with suppress(OSError):
            Path(f"/proc/{self.pid}/oom_score_adj").write_text("1000")

    def step(self, word: str) -> dict | None:
        """Let it work until it pauses (None), or to its end (its answer)."""
        self.signal(signal.SIGCONT)
        pipe = self._process.stdout
        if word:
            with suppress(OSError):  # it has ended: see below
                self._process.stdin.write(f"{word}\n".encode())
        # It writes a line at once, and then waits for a word.
        if not select.select([pipe], [], [], self._limit)[0]:
            return {"error": f"no answer in {self._limit:.0f} s"}
        line = pipe.readline().decode(errors="replace").strip()
        if line == READY:
            self.signal(signal.SIGSTOP)
            return None
        try:
            return dict(json.loads(line))
        except (TypeError, ValueError):
            if self.wait(self._limit) is None:
                return {"error": "it closed its output"}
            return {"error": self.failure("it")}


def rotated(names: Sequence[str], by: int) -> list[str]:
    """Return names with another one first for each `by`."""
    by %= max(1, len(names))
    return [*names[by:], *names[:by]]


def run(commands: dict[str, list[str]], limit: float) -> dict[str, dict]:
    """Measure the loops of a case, given as the commands of their workers.

    Returns each one's answer: {"figures": ...}, or {"error": ...} if it
    failed, gave no JSON, or took more than *limit* seconds for a step.
    """
    workers: dict[str, Worker] = {}
    answers: dict[str, dict] = {}

    def step(word: str, first: int = 0) -> None:
        left = [name for name in workers if name not in answers]
        for name in rotated(left, first):
            answer = workers[name].step(word)
            if answer is not None:
                answers[name] = answer
                workers[name].end()

    with ExitStack() as stack:
        for name, command in commands.items():
            workers[name] = Worker(command, limit)
            stack.callback(workers[name].end)
        step("")  # they import, all at once
        step(GO)  # set up and warm up
        while len(answers) < len(workers):
            end = time.monotonic() + SHARE_S * (len(workers) - len(answers))
            for sample in range(MOST_SAMPLES):
                if sample >= LEAST_SAMPLES and time.monotonic() > end:
                    break
                step(GO, sample)
            step(END)
    return answers
