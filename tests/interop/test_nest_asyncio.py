"""nest_asyncio is refused by a fastloop, which goes on as before."""

from __future__ import annotations

import subprocess
import sys

import pytest
from interop_process import PATIENCE, child_env

PROGRAM = """
import asyncio, sys
import fastloop
import {module} as nest

async def work():
    loop = asyncio.get_running_loop()
    task = loop.create_task(asyncio.sleep(0.001, 3))
    return await asyncio.wait_for(task, 10), await asyncio.to_thread(abs, -8)

def check_that_all_works():
    with asyncio.Runner(loop_factory=fastloop.new_event_loop) as runner:
        assert runner.run(work()) == (3, 8)
    assert fastloop.run(work()) == (3, 8)

def refuses(*loop):
    try:
        nest.apply(*loop)
    except ValueError as exc:
        return "Can't patch loop of type" in str(exc)

async def refuses_inside():
    return refuses(), await work()

async def nested_in_asyncio():
    nest.apply()
    return asyncio.get_running_loop().run_until_complete(work())

loop = fastloop.new_event_loop()
assert refuses(loop)
assert loop.run_until_complete(work()) == (3, 8)
check_that_all_works()
assert fastloop.run(refuses_inside()) == (True, (3, 8))
check_that_all_works()
plain = asyncio.SelectorEventLoop()
assert plain.run_until_complete(nested_in_asyncio()) == (3, 8)
plain.close()
check_that_all_works()
assert refuses(loop)
assert loop.run_until_complete(work()) == (3, 8)
loop.close()
print("all works")
"""


@pytest.mark.parametrize("module", ["nest_asyncio", "nest_asyncio2"])
def test_apply_is_refused_and_changes_no_fastloop(module):
    pytest.importorskip(module, reason=f"{module} is not installed")
    if module == "nest_asyncio" and sys.version_info >= (3, 14):
        pytest.skip("no asyncio.timeout works after it, on any loop")
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", PROGRAM.format(module=module)],
        capture_output=True,
        text=True,
        timeout=PATIENCE,
        env=child_env(),
    )
    assert (done.returncode, done.stdout) == (0, "all works\n"), done.stderr
