"""What a StreamReader does when it is changed from within its own calls.

A program's object runs code at a call of ours, and that code looks at the
reader's __dict__: from then on the reader is asyncio's own.
"""

from __future__ import annotations

import asyncio
import socket
import weakref

import pytest
from net_helpers import KIB, MIB, BufferedRecorder, iterations, spin


class Through:
    """An object that looks at a reader's _buffer at some calls."""

    def __init__(self, behind, reader, *names):
        self.behind = behind
        self.reader = reader
        self.names = names

    def __getattr__(self, name):
        if name in self.names:
            assert isinstance(vars(self.reader)["_buffer"], bytearray)
        return getattr(self.behind, name)


async def test_a_class_with_another_base_first(opened):
    reader, _, peer = await opened()
    await peer.send(b"1")
    assert await reader.read(1) == b"1"

    class Other:
        pass

    class Reader(Other, type(reader)):
        pass

    made = Reader(limit=5)
    assert made._limit == 5
    assert made._loop is asyncio.get_running_loop()
    made.feed_data(b"12")
    assert await made.read(5) == b"12"


async def test_a_loop_of_none(opened):
    reader, _, peer = await opened()
    await peer.send(b"1")
    assert await reader.read(1) == b"1"
    reader._loop = None
    assert reader._loop is None
    assert repr(reader).startswith("<StreamReader")
    with pytest.raises(AttributeError, match="create_future"):
        await reader.read(1)


async def test_a_refused_search_leaves_the_first_one_alone(opened):
    reader, _, peer = await opened()
    first = asyncio.create_task(reader.readuntil(b"\r\n"))
    await iterations(1)
    await peer.send(b"12\r")
    await iterations(3)
    with pytest.raises(RuntimeError, match="already waiting"):
        await reader.readline()
    await peer.send(b"\n34")
    assert await first == b"12\r\n"
    assert await reader.readexactly(2) == b"34"


async def test_feed_data_is_patched_while_much_comes(opened, monkeypatch):
    reader, _, peer = await opened(limit=MIB)
    task = asyncio.create_task(reader.readexactly(4 * 20 * KIB))
    await iterations(1)
    for _ in range(2):
        await peer.send(bytes(20 * KIB))
        await iterations(3)
    original = asyncio.StreamReader.feed_data
    seen = 0

    def feed_data(self, data):
        nonlocal seen
        seen += len(data)
        original(self, data)

    monkeypatch.setattr(asyncio.StreamReader, "feed_data", feed_data)
    for _ in range(2):
        await peer.send(bytes(20 * KIB))
        await iterations(3)
    assert len(await task) == 4 * 20 * KIB
    assert seen == 2 * 20 * KIB


@pytest.mark.parametrize("name", ["pause_reading", "resume_reading"])
async def test_a_transport_reads_the_buffer(opened, name):
    reader, writer, peer = await opened(limit=10)
    await peer.send(b"1")
    assert await reader.read(1) == b"1"
    reader._transport = Through(writer.transport, reader, name)
    await peer.send(b"a" * 30)
    await iterations(3)
    assert reader._paused
    await peer.send(b"b" * 30)
    assert await reader.readexactly(60) == b"a" * 30 + b"b" * 30


@pytest.mark.parametrize("method", ["read", "readexactly", "readuntil"])
async def test_a_loop_reads_the_buffer(opened, method):
    reader, _, peer = await opened()
    await peer.send(b"1")
    assert await reader.read(1) == b"1"
    reader._loop = Through(reader._loop, reader, "create_future")
    argument = b"\n" if method == "readuntil" else 3
    task = asyncio.create_task(getattr(reader, method)(argument))
    await iterations(1)
    await peer.send(b"12\n")
    assert await task == b"12\n"


async def test_a_future_reads_the_buffer_when_it_is_set(opened):
    reader, _, peer = await opened(limit=10)
    await peer.send(b"1")
    assert await reader.read(1) == b"1"
    loop = asyncio.get_running_loop()

    class Future(asyncio.Future):
        def set_result(self, result):
            assert isinstance(vars(reader)["_buffer"], bytearray)
            super().set_result(result)

    class Loop(Through):
        def create_future(self):
            return Future(loop=loop)

    reader._loop = Loop(loop, reader)
    task = asyncio.create_task(reader.read(30))
    await iterations(1)
    await peer.send(b"a" * 60)
    assert await task == b"a" * 30
    await peer.send(b"b" * 60)
    assert await reader.readexactly(90) == b"a" * 30 + b"b" * 60


async def test_a_socket_feeds_in_fileno(opened, monkeypatch):
    """A stream asks a socket that was given before each read."""
    reader, _, peer = await opened(limit=MIB)
    task = asyncio.create_task(reader.readexactly(400 * KIB))
    await iterations(1)
    await peer.send(bytes(20 * KIB))
    await iterations(3)
    original = socket.socket.fileno
    fed = 0

    def fileno(sock):
        nonlocal fed
        if fed < 100 * KIB and sock is not peer.sock:
            fed += 10 * KIB
            reader.feed_data(bytes(10 * KIB))
        return original(sock)

    monkeypatch.setattr(socket.socket, "fileno", fileno)
    await peer.send(bytes(280 * KIB))
    await iterations(10)
    monkeypatch.undo()
    reader.feed_data(bytes(100 * KIB - fed))
    assert len(await task) == 400 * KIB
    assert reader._buffer == b""


async def test_a_socket_reads_the_buffer_at_each_recv(opened, monkeypatch):
    reader, _, peer = await opened(limit=MIB)
    task = asyncio.create_task(reader.readexactly(400 * KIB))
    await iterations(1)
    await peer.send(bytes(20 * KIB))
    await iterations(3)
    original = socket.socket.fileno

    def fileno(sock):
        if sock is not peer.sock:
            assert isinstance(vars(reader)["_buffer"], bytearray)
        return original(sock)

    monkeypatch.setattr(socket.socket, "fileno", fileno)
    await peer.send(bytes(380 * KIB))
    assert len(await task) == 400 * KIB


@pytest.fixture
def at_next_lookup(monkeypatch):
    """Return what makes the next lookup of data_received run a function."""
    original = asyncio.StreamReaderProtocol.data_received
    waiting = []

    class Looked:
        def __get__(self, obj, kind=None):
            if waiting and obj is not None:
                waiting.pop()()
            return original if obj is None else original.__get__(obj, kind)

    def arm(function):
        monkeypatch.setattr(
            asyncio.StreamReaderProtocol, "data_received", Looked()
        )
        waiting.append(function)
        return waiting

    return arm


async def waiting_for_much(opened):
    """Open a stream whose reader has got a part of what it waits for."""
    reader, writer, peer = await opened(limit=MIB)
    task = asyncio.create_task(reader.readexactly(100 * KIB))
    await iterations(1)
    await peer.send(bytes(20 * KIB))
    await iterations(3)
    return reader, writer, peer, task


async def test_another_protocol_is_set_when_data_received_is_looked_up(
    opened, at_next_lookup
):
    reader, writer, peer, task = await waiting_for_much(opened)
    first, second = writer.transport.get_protocol(), BufferedRecorder()
    left = at_next_lookup(lambda: writer.transport.set_protocol(second))
    await peer.send(bytes(20 * KIB))
    await spin(lambda: not left)
    task.cancel()
    await spin(lambda: len(reader._buffer) + len(second.data) == 40 * KIB)
    writer.transport.set_protocol(first)


async def test_a_connection_is_aborted_when_data_received_is_looked_up(
    opened, at_next_lookup
):
    """What it has read by then still arrives."""
    _, writer, peer, task = await waiting_for_much(opened)
    at_next_lookup(writer.transport.abort)
    await peer.send(bytes(20 * KIB))
    with pytest.raises(asyncio.IncompleteReadError) as caught:
        await task
    assert len(caught.value.partial) in (20 * KIB, 40 * KIB)


async def test_a_reader_is_dropped_when_its_methods_are_looked_up(
    pair, monkeypatch
):
    """By the one that waits: what comes then goes nowhere."""
    loop = asyncio.get_running_loop()
    reader = asyncio.StreamReader(limit=MIB)
    protocol = asyncio.StreamReaderProtocol(reader)
    transport, _ = await loop.create_connection(lambda: protocol, sock=pair[0])
    dropped = weakref.ref(reader)
    coro = reader.readexactly(100 * KIB)
    task = asyncio.create_task(coro)
    del reader
    await iterations(1)
    await loop.sock_sendall(pair[1], bytes(20 * KIB))
    await iterations(3)
    original = asyncio.StreamReader.feed_data

    class Looked:
        def __get__(self, obj, kind=None):
            coro.close()
            return original if obj is None else original.__get__(obj, kind)

    monkeypatch.setattr(asyncio.StreamReader, "feed_data", Looked())
    await loop.sock_sendall(pair[1], bytes(20 * KIB))
    await spin(lambda: dropped() is None)
    transport.abort()
    task.cancel()
    with pytest.raises(RuntimeError, match="already awaited coroutine"):
        await task
