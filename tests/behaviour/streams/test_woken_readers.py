"""What befalls a task between the event that wakes its read() and its step.

The bytes are the task's or the next reader's, in their order, whatever the
callbacks do that run between the two.
"""

from __future__ import annotations

import asyncio

import pytest
from net_helpers import KIB, iterations, pattern

DATA = pattern(20 * KIB)


async def start_read(reader, size=64 * KIB):
    task = asyncio.create_task(reader.read(size))
    await iterations(1)
    assert reader._waiter is not None
    return task


async def call_between(reader, call):
    """Call once the waiter was woken, before its task runs.  The answer."""
    loop = asyncio.get_running_loop()
    answer = loop.create_future()

    def look():
        if reader._waiter is not None:
            loop.call_soon(look)
        else:
            answer.set_result(call())

    loop.call_soon(look)
    return await answer


async def test_the_task_is_cancelled(opened):
    reader, _, peer = await opened()
    task = await start_read(reader)
    await peer.send(DATA)
    await call_between(reader, task.cancel)
    with pytest.raises(asyncio.CancelledError):
        await task
    assert await reader.readexactly(len(DATA)) == DATA


@pytest.mark.parametrize("method", ["read", "readexactly"])
async def test_another_task_reads(opened, method):
    reader, _, peer = await opened()
    task = await start_read(reader)
    await peer.send(DATA)

    def read():
        call = getattr(reader, method)(1000)
        with pytest.raises(StopIteration) as caught:
            call.send(None)
        return caught.value.value

    assert await call_between(reader, read) == DATA[:1000]
    assert await task == DATA[1000:]
