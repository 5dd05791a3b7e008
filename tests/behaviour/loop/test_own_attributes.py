"""What a loop stores, for asyncio and for fastloop, makes it no __dict__.

The programs of tests/differential have most uses; here are the others.
"""

import asyncio
import gc
import sys

import pytest

import fastloop
from fastloop.contrib import opentelemetry


async def subprocess(loop):
    child = await asyncio.create_subprocess_exec(sys.executable, "-c", "")
    await child.wait()


async def reports(loop):
    opentelemetry.instrument(loop)  # turns metrics on, starts the watchdog
    loop.slow_callback_duration = 0
    loop.slow_callback_hook = str
    loop.set_task_factory(lambda _, coro, **__: asyncio.Task(coro, loop=loop))
    await loop.create_task(asyncio.sleep(0))
    assert loop._recent_slow
    loop.set_exception_handler(lambda *_: None)
    loop.call_exception_handler({"message": "", "exception": OSError()})


@pytest.mark.parametrize("use", [subprocess, reports])
def test_a_loop_has_no_dict_after_its_use(use):
    """asyncio's has one."""

    async def main():
        loop = asyncio.get_running_loop()
        await use(loop)
        return loop

    loop = fastloop.run(main())
    found = gc.get_referents(loop)
    assert not any(each is vars(loop) for each in found)
