"""What a program pays before it has done anything: import time and memory."""

from __future__ import annotations

import os
import subprocess
import sys

from harness import ROOT
from harness.case import Case, Figure, LoopFactory, Run, figure, simple_case

ORDER = 120

IMPORT = """
import sys, time
sys.path.append(sys.argv[2])
start = time.perf_counter()
import asyncio
loop = __import__(sys.argv[1]).new_event_loop()
print((time.perf_counter() - start) * 1e3)
loop.close()
"""

MEMORY = """
import sys
sys.path.append(sys.argv[2])
import asyncio
async def trivial():
    pass
loop = __import__(sys.argv[1]).new_event_loop()
loop.run_until_complete(trivial())
for line in open("/proc/self/smaps_rollup"):
    if line.startswith("Rss:"):
        print(int(line.split()[1]) / 1024)
loop.close()
"""


def in_fresh_interpreter(program: str, run: Run) -> float:
    # As installed packages are: with their bytecode beside them.
    environment = {**os.environ, "PYTHONDONTWRITEBYTECODE": ""}
    words = [run.loop, str(ROOT)]
    done = subprocess.run(
        [sys.executable, "-P", "-c", program, *words],
        capture_output=True,
        text=True,
        timeout=20,
        env=environment,
    )
    if done.returncode:
        raise RuntimeError(done.stderr.strip().splitlines()[-1])
    return float(done.stdout)


def startup_case(
    name: str, title: str, unit: str, program: str, seconds: float
) -> Case:
    @simple_case(name, title, unit=unit, group="startup", seconds=seconds)
    def case(_: LoopFactory, run: Run) -> Figure:
        in_fresh_interpreter(program, run)
        return figure(
            [in_fresh_interpreter(program, run) for _ in run.repeat()]
        )

    return case


CASES = (
    startup_case(
        "import", "import asyncio and the loop, make one", "ms", IMPORT, 0.5
    ),
    startup_case(
        "memory", "memory after import and one loop", "MiB", MEMORY, 0.2
    ),
)
