"""asyncio's streams on the loop: the writer, and servers of streams."""

from __future__ import annotations

import asyncio

import pytest
from net_helpers import (
    KIB,
    client_context,
    pattern,
    server_context,
    tcp_socketpair,
)


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
