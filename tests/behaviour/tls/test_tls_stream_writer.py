"""asyncio's streams, and sendfile, over TLS."""

from __future__ import annotations

import asyncio
import contextlib
import socket

import pytest
from net_helpers import (
    KIB,
    MIB,
    client_context,
    digest,
    iterations,
    listening_socket,
    pattern,
    server_context,
)
from tls_ends import (
    WirePeer,
    closes_with_raw,
    every_side,
)


@contextlib.asynccontextmanager
async def stream_to_peer(loop, **options):
    """A reader and a writer of a client, and the wire's other end."""
    with listening_socket() as listener:
        task = loop.create_task(
            asyncio.open_connection(
                *listener.getsockname(),
                ssl=client_context(),
                server_hostname="localhost",
                **options,
            )
        )
        sock, _ = await loop.sock_accept(listener)
    peer = WirePeer(sock, server_context(), True)
    await peer.handshake()
    reader, writer = await task
    yield reader, writer, peer
    peer.close()
    writer.close()
    with contextlib.suppress(OSError):
        await writer.wait_closed()
    await iterations(2)


async def test_a_reader_that_does_not_read_holds_the_peer(run, loop):
    """The limit of the reader pauses TLS, which pauses the wire."""
    data = pattern(8 * MIB)
    async with stream_to_peer(loop, limit=64 * KIB) as (reader, _w, peer):
        # Or the kernel's two buffers may grow enough to take all.
        peer.sock.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 64 * KIB)
        sending = asyncio.ensure_future(peer.write(data))
        while len(reader._buffer) <= 128 * KIB:
            await iterations(1)
        await iterations(50)
        assert not sending.done()
        assert len(reader._buffer) < 2 * MIB
        got = await reader.readexactly(len(data))
        assert digest(got) == digest(data)
        await sending


@closes_with_raw
async def test_a_task_that_goes_on_writing_learns_of_a_reset(run, loop):
    """drain() yields once the transport is closing, and then raises.

    fastloop sends when 64 KiB have been written, or sooner.
    """
    async with stream_to_peer(loop) as (_reader, writer, peer):
        peer.reset()
        with pytest.raises(ConnectionError):
            for _ in range(10_000):
                writer.write(b"into the void")
                await writer.drain()


@pytest.fixture
def file(tmp_path):
    """A file of a megabyte and a little."""
    path = tmp_path / "file"
    path.write_bytes(pattern(MIB + 12_345))
    with path.open("rb") as opened:
        yield opened


@every_side
@pytest.mark.parametrize("args", [(), (1000, 5000)])
async def test_sendfile_falls_back(tls_pair, loop, side, file, args):
    """The file is read and sealed: the kernel cannot send it itself."""
    c = await tls_pair(side=side)
    expected = pattern(MIB + 12_345)
    if args:
        expected = expected[1000:6000]
    sending = asyncio.ensure_future(loop.sendfile(c.transport, file, *args))
    assert digest(await c.peer.read_exactly(len(expected))) == digest(expected)
    assert await sending == len(expected)
    assert file.tell() == (args[0] if args else 0) + len(expected)
    # The protocol is back in place.
    assert c.transport.get_protocol() is c.protocol
    await c.settle()
