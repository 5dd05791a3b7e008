"""What a program pays before it has done anything: import time and memory."""

from __future__ import annotations

import os
import subprocess
import sys

from harness import ROOT
from harness.case import Case, Figure, LoopFactory, Run, figure, simple_case

ORDER = 120

START = """
import sys, time
sys.path.append(sys.argv[2])
start = time.perf_counter()
import asyncio
loop = __import__(sys.argv[1]).new_event_loop()
"""
IMPORT = "print((time.perf_counter() - start) * 1e3)\n"
MEMORY = """
async def trivial():
    pass
loop.run_until_complete(trivial())
for line in open("/proc/self/smaps_rollup"):
    if line.startswith("Rss:"):
        print(int(line.split()[1]) / 1024)
"""


def startup_case(name: str, title: str, unit: str, end: str) -> Case:
    program = f"{START}{end}loop.close()"

    def in_fresh_interpreter(run: Run) -> float:
        done = subprocess.run(
            [sys.executable, "-P", "-c", program, run.loop, str(ROOT)],
            capture_output=True,
            text=True,
            timeout=20,
            # As installed packages are: with their bytecode beside them.
            env={**os.environ, "PYTHONDONTWRITEBYTECODE": ""},
        )
        if done.returncode:
            raise RuntimeError(done.stderr.strip().splitlines()[-1])
        return float(done.stdout)

    @simple_case(name, title, unit, "startup", seconds=0.5)
    def case(_: LoopFactory, run: Run) -> Figure:
        in_fresh_interpreter(run)
        return figure([in_fresh_interpreter(run) for _ in run.repeat()])

    return case


CASES = (
    startup_case(
        "import", "import asyncio and the loop, make one", "ms", IMPORT
    ),
    startup_case("memory", "memory after import and one loop", "MiB", MEMORY),
)
