"""What a program pays before it has done anything: import time and memory.

Each figure comes from interpreters of their own that import asyncio and the
loop's package where it is another, and make one loop: a package may put off
its imports until then, and every program makes one.  For the memory the loop
is run once.  asyncio's own row is the floor that the others stand on.
"""

from __future__ import annotations

import os
import subprocess
import sys
import time

from harness.case import Case, Figure, LoopFactory, Row, Run, figure
from harness.loops import ROOT

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
    done = subprocess.run(
        [sys.executable, "-P", "-c", program, run.loop, str(ROOT)],
        capture_output=True,
        text=True,
        timeout=20,
        env=environment,
    )
    if done.returncode:
        raise RuntimeError(done.stderr.strip().splitlines()[-1])
    return float(done.stdout)


def repeated(program: str, run: Run) -> Figure:
    in_fresh_interpreter(program, run)
    samples = []
    end = time.perf_counter() + run.seconds
    while len(samples) < 3 or time.perf_counter() < end:
        samples.append(in_fresh_interpreter(program, run))
    return figure(samples)


def import_time(_: LoopFactory, run: Run) -> dict[str, Figure]:
    return {"import": repeated(IMPORT, run)}


def memory(_: LoopFactory, run: Run) -> dict[str, Figure]:
    return {"memory": repeated(MEMORY, run)}


CASES = (
    Case(
        "import",
        "startup",
        (Row("import", "import asyncio and the loop, make one", "ms"),),
        import_time,
        seconds=0.5,
    ),
    Case(
        "memory",
        "startup",
        (Row("memory", "memory after import and one loop", "MiB"),),
        memory,
        seconds=0.2,
    ),
)
