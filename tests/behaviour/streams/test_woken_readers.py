"""What befalls a task between the event that wakes its read() and its step.

The bytes are the task's or the next reader's, in their order, whatever the
callbacks do that run between the two.
"""

from __future__ import annotations

import asyncio
import socket

import pytest
from net_helpers import KIB, Peer, iterations, pattern

DATA = pattern(20 * KIB)


@pytest.fixture
def opened(run):
    """Return what opens a (reader, writer, peer) that has seen a large read.

    They are closed after the test.
    """
    made = []

    async def open_one(**options):
        accepted = asyncio.get_running_loop().create_future()

        async def accept(reader, writer):
            accepted.set_result((reader, writer))

        server = await asyncio.start_server(accept, "127.0.0.1", 0, **options)
        name = server.sockets[0].getsockname()
        peer = Peer(socket.create_connection(name))
        reader, writer = await accepted
        server.close()
        made.append((writer, peer))
        await peer.send(DATA)
        assert await reader.readexactly(len(DATA)) == DATA
        await peer.send(DATA)
        assert await read_all(reader, len(DATA)) == DATA
        return reader, writer, peer

    async def close_all():
        for writer, peer in made:
            writer.close()
            peer.close()
            await asyncio.gather(writer.wait_closed(), return_exceptions=True)

    yield open_one
    run(close_all())


async def read_all(reader, size):
    got = b""
    while len(got) < size:
        part = await reader.read(size - len(got))
        assert part
        got += part
    return got


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


async def test_the_reader_is_inspected(opened):
    reader, _, peer = await opened()
    task = await start_read(reader)
    await peer.send(DATA)
    await call_between(reader, lambda: vars(reader))
    assert await task == DATA


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


async def test_an_exception_is_set(opened):
    reader, _, peer = await opened()
    task = await start_read(reader)
    await peer.send(DATA)
    await call_between(reader, lambda: reader.set_exception(OSError("no")))
    assert await task == DATA
    with pytest.raises(OSError, match="no"):
        await reader.read(1)


async def test_the_peer_resets_after_its_data(opened):
    reader, _, peer = await opened()
    task = await start_read(reader)
    await peer.send(DATA)
    assert await task == DATA
    task = await start_read(reader)
    peer.reset()
    with pytest.raises(ConnectionResetError):
        await task
