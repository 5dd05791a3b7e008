"""asyncio's own eyes from outside and inside: ps, pstree, call graphs.

They read tasks and futures, not the loop, so a loop that keeps asyncio's own
types is seen through; these tests keep it so.
"""

import subprocess
import sys

import pytest
from patience import PATIENCE

pytestmark = pytest.mark.skipif(
    sys.version_info < (3, 14), reason="call graphs came with 3.14"
)

WAITING = """
async def leaf():
    await asyncio.sleep(100)

async def branch():
    async with asyncio.TaskGroup() as group:
        group.create_task(leaf(), name="first leaf")
        group.create_task(leaf(), name="second leaf")

async def main():
    task = asyncio.create_task(branch(), name="the branch")
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    print("ready", flush=True)
    await task

async def bounded():
    await asyncio.wait_for(main(), 60)

with asyncio.Runner(loop_factory=new_loop) as runner:
    runner.run(bounded())
"""


@pytest.mark.parametrize("verb", ["ps", "pstree"])
def test_a_process_seen_from_outside(script, verb):
    process = script.start(WAITING)
    try:
        seen = subprocess.run(
            [sys.executable, "-m", "asyncio", verb, str(process.pid)],
            capture_output=True,
            text=True,
            timeout=PATIENCE,
        )
    finally:
        process.kill()
        process.communicate()
    text = seen.stdout + seen.stderr
    if "Permission" in text or "ptrace" in text.lower():
        pytest.skip("one process may not read another's memory here")
    assert seen.returncode == 0, text
    for name in ("first leaf", "second leaf", "the branch"):
        assert name in seen.stdout
    assert "leaf" in seen.stdout
    assert "TaskGroup" in seen.stdout
    assert "nothing" not in seen.stdout  # a task of fastloop's import
