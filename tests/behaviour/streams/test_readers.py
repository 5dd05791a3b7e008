"""Streams: what programs see of a StreamReader that C fills and empties.

What a reader does with data, limits and ends is compared with asyncio's by the
programs of tests/differential.
"""

import asyncio
import inspect
import tracemalloc
import weakref

import pytest
from net_helpers import (
    KIB,
    MIB,
    iterations,
    tcp_socketpair,
)


async def test_its_attributes_are_asyncios(opened):
    """Redis looks, before each command, whether an answer is left over."""
    reader, _, peer = await opened()
    kind, seen = type(reader), reader._buffer
    for _ in range(3):
        await peer.send(b"left")
        await iterations(3)
        assert reader._buffer is seen and seen == b"left"
        assert await reader.readexactly(4) == b"left"
        assert not seen and type(reader) is kind
        assert list(vars(reader)) == list(vars(asyncio.StreamReader()))


def move(reader, name):
    """Its other attributes come before it then."""
    value = getattr(reader, name)
    delattr(reader, name)
    setattr(reader, name, value)


def another_dict(reader):
    reader.__dict__ = dict(reader.__dict__)
    move(reader, "_loop")


def a_limit_of_another_type(reader):
    reader._limit = float(reader._limit)


def another_order(reader):
    move(reader, "_transport")
    move(reader, "_exception")


@pytest.mark.parametrize(
    "change", [another_dict, a_limit_of_another_type, another_order]
)
async def test_a_program_changes_its_attributes(opened, change):
    """After a large read, when the kernel writes into the _buffer."""
    reader, writer, peer = await opened()
    for _ in range(2):
        await peer.send(bytes(80 * KIB))
        await iterations(5)
        change(reader)
    assert not writer.transport.is_reading()
    with pytest.raises(asyncio.LimitOverrunError):
        await reader.readuntil(b"end")
    assert await reader.readexactly(160 * KIB) == bytes(160 * KIB)


async def test_eof_while_a_program_views_its_buffer(opened):
    reader, _, peer = await opened()
    await peer.send(bytes(20 * KIB))
    await reader.readexactly(20 * KIB)
    with memoryview(reader._buffer):
        peer.send_eof()
        await iterations(5)
    assert await reader.read() == b""


async def test_isinstance_and_inspect(opened):
    reader, _, peer = await opened()
    assert isinstance(reader, asyncio.StreamReader)
    assert type(reader).__name__ == "StreamReader"
    assert repr(type(reader)) == repr(asyncio.StreamReader)
    for name in ("read", "readexactly", "readuntil", "readline"):
        assert inspect.iscoroutinefunction(getattr(reader, name))
    call = reader.readexactly(2)
    assert inspect.iscoroutine(call) and asyncio.iscoroutine(call)
    await peer.send(b"12")
    assert await call == b"12"
    signature = inspect.signature(reader.read)
    assert [p.name for p in signature.parameters.values()] == ["n"]
    assert isinstance(reader.__dict__, dict)
    reader.note = "mine"
    assert reader.note == "mine" and "note" in vars(reader)
    await peer.send(b"34")
    assert await reader.read(2) == b"34"
    assert weakref.ref(reader)() is reader


async def test_waiting_tasks_go_on_in_order(opened):
    """A task that reads is woken as one that waits for a future is."""
    reader, _, _ = await opened()
    order = []

    async def read(name):
        await reader.readexactly(2)
        order.append(name)

    async def wait(future, name):
        await future
        order.append(name)

    loop = asyncio.get_running_loop()
    before, after = loop.create_future(), loop.create_future()
    tasks = [
        asyncio.create_task(wait(before, "before")),
        asyncio.create_task(read("reader")),
        asyncio.create_task(wait(after, "after")),
    ]
    await iterations(1)
    before.set_result(None)
    reader.feed_data(b"ab")
    after.set_result(None)
    await asyncio.gather(*tasks)
    assert order == ["before", "reader", "after"]


async def test_a_reader_of_a_subclass(loop):
    """A protocol with its own StreamReader class works as always."""

    class Loud(asyncio.StreamReader):
        def feed_data(self, data):
            super().feed_data(data.upper())

    near, far = tcp_socketpair()
    reader = Loud(loop=loop)
    protocol = asyncio.StreamReaderProtocol(reader, loop=loop)
    transport, _ = await loop.create_connection(lambda: protocol, sock=near)
    writer = asyncio.StreamWriter(transport, protocol, reader, loop)
    far.send(b"quiet\n")
    assert await reader.readline() == b"QUIET\n"
    far.close()
    writer.close()
    await writer.wait_closed()


async def test_a_reader_whose_transport_cannot_pause(loop):
    """It stores all, and asks that transport no more."""

    class Program(asyncio.Transport):
        def is_closing(self):
            return False

    near, far = tcp_socketpair()
    reader = asyncio.StreamReader(limit=10, loop=loop)
    protocol = asyncio.StreamReaderProtocol(reader, loop=loop)
    made = protocol.connection_made
    protocol.connection_made = lambda _: made(Program())
    transport, _ = await loop.create_connection(lambda: protocol, sock=near)
    for _ in range(2):
        far.send(bytes(100))
        assert await reader.readexactly(50) == bytes(50)
    far.close()
    assert await reader.read() == bytes(100)
    transport.abort()


# -- memory -------------------------------------------------------------------


async def test_a_silent_peer_keeps_no_more_than_its_last_bytes(opened):
    """What the event with them brought is free again."""
    reader, _, peer = await opened()
    tracemalloc.start()
    try:
        await peer.send(b"line\n" * 40_000 + b"begun")
        for _ in range(40_000):
            await reader.readline()
        task = asyncio.create_task(reader.readline())
        await iterations(3)
        kept, _ = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    await peer.send(b"\n")
    assert await task == b"begun\n"
    assert kept < 32 * KIB


async def test_a_long_line_is_not_copied_at_each_event(opened):
    """A copy would need as much memory again."""
    reader, _, peer = await opened(limit=16 * MIB)
    task = asyncio.create_task(reader.readline())
    await iterations(1)
    await peer.send(bytes(MIB))
    await iterations(10)
    copies, events = 0, 50
    tracemalloc.start()
    try:
        for _ in range(events):
            before, _ = tracemalloc.get_traced_memory()
            tracemalloc.reset_peak()
            await peer.send(bytes(20 * KIB))
            await iterations(3)
            _, peak = tracemalloc.get_traced_memory()
            copies += peak - before > MIB
    finally:
        tracemalloc.stop()
    await peer.send(b"\n")
    assert len(await task) == MIB + events * 20 * KIB + 1
    assert copies < events / 10
