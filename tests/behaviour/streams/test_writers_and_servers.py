"""asyncio's streams on the loop: the writer, and servers of streams."""

from __future__ import annotations

import asyncio
import inspect

import pytest
from net_helpers import (
    KIB,
    MIB,
    client_context,
    digest,
    iterations,
    pattern,
    server_context,
    tcp_socketpair,
)


async def test_classes(opened):
    reader, writer, peer = await opened()
    assert isinstance(reader, asyncio.StreamReader)
    assert repr(type(reader)) == repr(asyncio.StreamReader)
    assert type(writer) is asyncio.StreamWriter
    assert isinstance(writer.transport, asyncio.Transport)
    protocol = writer.transport.get_protocol()
    assert isinstance(protocol, asyncio.StreamReaderProtocol)
    assert writer.get_extra_info("peername") == peer.sock.getsockname()
    assert writer.can_write_eof()
    assert not writer.is_closing()


async def test_drain_under_back_pressure(opened):
    """It waits while the peer does not read, and goes on when it does."""

    reader, writer, peer = await opened()
    data = pattern(8 * MIB)
    await writer.drain()
    writer.write(data)
    drains = [asyncio.create_task(writer.drain()) for _ in range(3)]
    await iterations(10)
    assert not any(draining.done() for draining in drains)
    assert digest(await peer.recv_exactly(8 * MIB)) == digest(data)
    await asyncio.gather(*drains)


async def test_drain_after_the_connection_was_lost(opened):
    reader, writer, peer = await opened()
    writer.write(bytes(8 * MIB))
    draining = asyncio.create_task(writer.drain())
    await iterations(5)
    peer.reset()
    with pytest.raises(ConnectionError):
        await draining
    with pytest.raises(ConnectionError):
        await reader.read()


async def test_write_eof(opened):
    reader, writer, peer = await opened()
    writer.write(b"request")
    writer.write_eof()
    assert await peer.recv_all() == b"request"
    await peer.send(b"response")
    peer.send_eof()
    assert await reader.read() == b"response"


async def test_wait_closed(opened):
    reader, writer, peer = await opened()
    writer.write(pattern(MIB))
    writer.close()
    assert writer.is_closing()
    waiting = asyncio.create_task(writer.wait_closed())
    assert len(await peer.recv_all()) == MIB
    await waiting
    await writer.wait_closed()


async def echo(reader, writer):
    while data := await reader.read(64 * KIB):
        writer.write(data)
        await writer.drain()
    writer.close()
    await writer.wait_closed()


@pytest.mark.parametrize("tls", [False, True], ids=["plain", "tls"])
async def test_an_echo_server(host, tls):
    """64 clients at once, each with its own bytes."""
    options = {}
    if tls:
        options = {"ssl": client_context(), "server_hostname": "localhost"}
    server = await host.serve_streams(
        echo, **({"ssl": server_context()} if tls else {})
    )

    async def client(i):
        reader, writer = await host.open(**options)
        for seed in range(3):
            data = pattern(10_000, i * 3 + seed)
            writer.write(data)
            await writer.drain()
            assert await reader.readexactly(10_000) == data
        if not tls:
            writer.write_eof()
            assert await reader.read() == b""
        writer.close()
        await writer.wait_closed()

    async with server:
        await asyncio.gather(*(client(i) for i in range(64)))


# Early releases of 3.11 left the report to the handler's task.
HANDLER_FAILED = (
    "client_connected_cb"
    if "in client_connected_cb" in inspect.getsource(asyncio.streams)
    else "Task exception was never retrieved"
)


async def test_a_handler_that_raises_is_reported(host, reports):
    async def bad(reader, writer):
        writer.close()
        raise ZeroDivisionError

    await host.serve_streams(bad)
    reader, writer = await host.open()
    assert await reader.read() == b""
    writer.close()
    await writer.wait_closed()
    await iterations(5)
    (report,) = reports
    assert isinstance(report["exception"], ZeroDivisionError)
    assert HANDLER_FAILED in report["message"]


async def test_a_pipeline_of_requests(host):
    """Many small requests in flight: the answers come in order."""

    async def handler(reader, writer):
        async for line in reader:
            writer.write(b"re: ")
            writer.write(line)
        writer.close()

    await host.serve_streams(handler)
    reader, writer = await host.open()
    for i in range(2000):
        writer.write(b"%d\n" % i)
    writer.write_eof()
    lines = (await reader.read()).splitlines()
    assert lines == [b"re: %d" % i for i in range(2000)]
    writer.close()
    await writer.wait_closed()


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
