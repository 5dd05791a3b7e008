"""asyncio.Queue.shutdown, new in 3.13, with waiters on both ends."""

import asyncio
import sys

import pytest

pytestmark = pytest.mark.skipif(
    sys.version_info < (3, 13), reason="Queue.shutdown came with 3.13"
)


async def test_getters_are_told(loop):
    queue = asyncio.Queue()
    getters = [loop.create_task(queue.get()) for _ in range(3)]
    await asyncio.sleep(0)
    queue.shutdown()
    results = await asyncio.gather(*getters, return_exceptions=True)
    assert [type(r) for r in results] == [asyncio.QueueShutDown] * 3
    with pytest.raises(asyncio.QueueShutDown):
        queue.put_nowait(1)


async def test_putters_are_told_and_items_stay(loop):
    queue = asyncio.Queue(1)
    await queue.put("kept")
    putters = [loop.create_task(queue.put(n)) for n in range(3)]
    await asyncio.sleep(0)
    queue.shutdown()
    results = await asyncio.gather(*putters, return_exceptions=True)
    assert [type(r) for r in results] == [asyncio.QueueShutDown] * 3
    assert await queue.get() == "kept"
    queue.task_done()
    await queue.join()
    with pytest.raises(asyncio.QueueShutDown):
        await queue.get()


async def test_immediate_shutdown_ends_join(loop):
    queue = asyncio.Queue()
    queue.put_nowait(1)
    queue.put_nowait(2)
    joiner = loop.create_task(queue.join())
    await asyncio.sleep(0)
    assert not joiner.done()
    queue.shutdown(immediate=True)
    await joiner
    assert queue.empty()
