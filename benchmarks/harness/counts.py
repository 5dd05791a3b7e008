"""Counts in place of clocks: user instructions, and system calls.

A count is a clock that ticks once for each of them: what a case that reads
`Run.clock` calls a nanosecond is one instruction or one call.  README.md has
the rest.
"""

from __future__ import annotations

import os
import re
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path

INSTRUCTIONS, CALLS = KINDS = ("instructions", "calls")
TOOLS = ("valgrind", "vgdb", "strace")
#: How long a generator loads a server for a sample: callgrind is slow.
WINDOW_S = {INSTRUCTIONS: 0.4, CALLS: 0.1}
#: A server is idle when it has used no CPU for so long.
IDLE_S = 0.05
#: And one that is not idle by then never is.
BUSY_S = 3.0
#: How many samples are counted; the first of a server warms it up.
SAMPLES = 3
#: How many counts a unit of a row is, and whether a figure is a rate.
UNITS = {
    "ns": (1.0, False),
    "us": (1e3, False),
    "ms": (1e6, False),
    "us/MiB": (1e3, False),
    "1/s": (1e9, True),
}
# The second line of a call that strace began in another.
RESUMED = b" resumed>"
# Set in the environment of a process that is counted.
IS_COUNTED = "FASTLOOP_BENCH_IS_COUNTED"


def an_operation(samples: Sequence[float], unit: str) -> float:
    """Return the counts of an operation, from a row's samples: the least.

    A sample may have something else in it: a pass of the GC, a larger heap.
    """
    counts, is_rate = UNITS[unit]
    return counts / max(samples) if is_rate else counts * min(samples)


def cpu_time(pid: int) -> int:
    """Return how long all threads of a process ran, in nanoseconds."""
    # As clock_getcpuclockid() makes the clock.
    return time.clock_gettime_ns(~pid << 3 | 2)


class Counter:
    """Counts what one process does, which `command` starts."""

    def __init__(self, kind: str, folder: str | Path) -> None:
        self.kind = kind
        self.was_read = False
        self._folder = Path(folder)
        self._log = self._folder / "calls"
        self._vgdb = f"--vgdb-prefix={self._folder / 'vgdb'}"
        self._pid = 0
        self._total = 0
        self._dumps = 0
        self._read_bytes = 0
        self._own = 0
        self._buffer = bytearray(1 << 26 if kind == CALLS else 0)

    def command(self, command: list[str]) -> list[str]:
        """Return the command that runs another one and counts."""
        if self.kind == CALLS:
            # The process is the command's, and strace a child of no one.
            log = str(self._log)
            return ["strace", "-D", "-f", "-qq", "-o", log, *command]
        return [
            "valgrind",
            "--tool=callgrind",
            "--instr-atstart=no",
            "--dump-before=getpriority",
            f"--callgrind-out-file={self._folder / 'callgrind'}",
            self._vgdb,
            "--quiet",
            *command,
        ]

    def count_this_process(self) -> None:
        """Run this program from its beginning again, so that it is counted.

        It comes here a second time, and then goes on.
        """
        if IS_COUNTED not in os.environ:
            os.environ[IS_COUNTED] = "1"
            command = self.command([sys.executable, *sys.orig_argv[1:]])
            os.execvp(command[0], command)
        self.start(os.getpid())

    def start(self, pid: int) -> None:
        """Begin to count the process, which `command` has started."""
        self._pid = pid
        self._is_own = pid == os.getpid()
        if self.kind == CALLS:
            self._file = os.open(self._log, os.O_RDONLY)
        else:
            self._ask("instrumentation", "on")
        self.read()
        if self._is_own:
            before = self.read()
            self._own = self.read() - before
        self.was_read = False

    def read(self) -> int:
        """Return how much was counted since the start."""
        self.was_read = True
        more = self._calls() if self.kind == CALLS else self._instructions()
        self._total += more - self._own
        return self._total

    def more_when_idle(self) -> int:
        """Return what was counted since the last time, once it is idle."""
        before, used_ns = self._total, -1
        end = time.monotonic() + BUSY_S
        while used_ns != (used_ns := cpu_time(self._pid)):
            if time.monotonic() > end:
                raise RuntimeError("the server uses CPU without a client")
            time.sleep(IDLE_S)
        return self.read() - before

    def _calls(self) -> int:
        size = os.fstat(self._file).st_size - self._read_bytes
        view = memoryview(self._buffer)[:size]
        os.preadv(self._file, [view], self._read_bytes)
        self._read_bytes += size
        text = self._buffer
        return text.count(b"\n", 0, size) - text.count(RESUMED, 0, size)

    def _instructions(self) -> int:
        self._dump()
        dump = self._folder / f"callgrind.{self._dumps}"
        found = re.search(r"^totals: (\d+)", dump.read_text(), re.MULTILINE)
        dump.unlink()
        assert found is not None
        if self._is_own:
            self._dump()  # what it took to read the file: it is not read
        return int(found[1])

    def _dump(self) -> None:
        self._dumps += 1
        if self._is_own:
            os.getpriority(os.PRIO_PROCESS, 0)  # callgrind dumps before it
        else:
            self._ask("dump")

    def _ask(self, *words: str) -> None:
        command = ["vgdb", self._vgdb, f"--pid={self._pid}", *words]
        subprocess.run(command, check=True, capture_output=True)
