"""Received data of which the reader took only a part.

An event reads all it may, whatever the waiter wants: the rest is the
reader's, and neither the kernel's nor anybody else's.
"""

import asyncio
import contextlib
import socket
import tracemalloc

import pytest
from net_helpers import (
    KIB,
    MIB,
    for_tls,
    iterations,
    listening_socket,
    pattern,
)

DATA = pattern(40 * KIB)
WANTED = 9000


class Ends:
    """A reader and writer of a server, and the writer and reader at them."""

    def __init__(self, server, client):
        self.reader, self.writer = server
        self.peer_reader, self.peer_writer = client

    async def send(self, data):
        """Send what fits the kernel's buffers: it is there at once."""
        self.peer_writer.write(data)
        assert self.peer_writer.transport.get_write_buffer_size() == 0


@pytest.fixture(params=["tcp", "tls"])
def connect(request, run):
    """Return what joins two streams, whose server has read much before."""
    for_server, for_client = for_tls(request.param == "tls")
    cleanup = contextlib.AsyncExitStack()

    async def open_ends(**options):
        arrived = asyncio.get_running_loop().create_future()

        async def accept(*server):
            arrived.set_result(server)

        # Before it listens: a connection has the buffers of its listener.
        listener = listening_socket()
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, MIB)
        server = await asyncio.start_server(
            accept, sock=listener, **for_server, **options
        )
        sock = socket.socket()
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, MIB)
        sock.connect(listener.getsockname())
        client = await asyncio.open_connection(sock=sock, **for_client)
        ends = Ends(await arrived, client)
        server.close()
        for writer in (ends.writer, ends.peer_writer):
            cleanup.push_async_callback(shut, writer)
        # A large read makes the next ones large.
        for _ in range(2):
            await ends.send(DATA)
            assert await ends.reader.readexactly(len(DATA)) == DATA
        return ends

    async def shut(writer):
        writer.transport.abort()
        with contextlib.suppress(ConnectionError):
            await writer.wait_closed()

    yield open_ends
    run(cleanup.aclose())


@pytest.mark.parametrize("size", [10, WANTED, 100 * KIB, MIB])
async def test_reads_of_one_size_give_all_in_order(connect, size):
    ends = await connect()
    data = pattern(3 * MIB)
    ends.peer_writer.write(data)
    ends.peer_writer.write_eof() if ends.peer_writer.can_write_eof() else (
        ends.peer_writer.close()
    )
    got = bytearray()
    while part := await ends.reader.read(size):
        assert len(part) <= size
        got += part
    assert got == data


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
