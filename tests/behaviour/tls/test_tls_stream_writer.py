"""asyncio's streams, and sendfile, over TLS."""

from __future__ import annotations

import asyncio
import contextlib
import socket

import pytest
from net_helpers import (
    KIB,
    MIB,
    PY312,
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
    every_version,
    every_way,
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


async def test_both_ends_are_streams(run):
    done = asyncio.get_running_loop().create_future()

    async def serve(reader, writer):
        while line := await reader.readline():
            writer.write(line.upper())
            await writer.drain()
        writer.close()
        await writer.wait_closed()
        done.set_result(None)

    server = await asyncio.start_server(
        serve, "127.0.0.1", 0, ssl=server_context()
    )
    reader, writer = await asyncio.open_connection(
        *server.sockets[0].getsockname(),
        ssl=client_context(),
        server_hostname="localhost",
    )
    assert writer.can_write_eof() is False
    for number in range(100):
        writer.write(b"line %d\n" % number)
        assert await reader.readline() == b"LINE %d\n" % number
    writer.close()
    await writer.wait_closed()
    await done
    server.close()
    await server.wait_closed()


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


async def test_drain_raises_after_a_reset(run, loop):
    async with stream_to_peer(loop) as (_reader, writer, peer):
        while not writer.transport._protocol_paused:
            writer.write(bytes(64 * KIB))
        waiting = asyncio.ensure_future(writer.drain())
        await iterations(2)
        peer.reset()
        with pytest.raises(ConnectionError):
            await waiting


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


@pytest.mark.skipif(not PY312, reason="the parameter came with 3.12")
async def test_a_shutdown_timeout_of_start_tls(run, loop):
    with listening_socket() as listener:
        reader, writer = await asyncio.open_connection(*listener.getsockname())
        sock, _ = await loop.sock_accept(listener)
    peer = WirePeer(sock, server_context(), True)
    task = loop.create_task(
        writer.start_tls(
            client_context(),
            server_hostname="localhost",
            ssl_handshake_timeout=10,
            ssl_shutdown_timeout=0.02,
        )
    )
    await peer.handshake()
    await task
    writer.close()
    with pytest.raises(TimeoutError, match="SSL shutdown timed out"):
        await writer.wait_closed()
    peer.close()


@pytest.fixture
def file(tmp_path):
    """A file of a megabyte and a little."""
    path = tmp_path / "file"
    path.write_bytes(pattern(MIB + 12_345))
    with path.open("rb") as opened:
        yield opened


@every_way
@every_version
async def test_sendfile_falls_back(tls_pair, loop, side, version, file):
    """The file is read and sealed: the kernel cannot send it itself."""
    c = await tls_pair(side=side, version=version)
    sending = asyncio.ensure_future(loop.sendfile(c.transport, file))
    size = MIB + 12_345
    assert digest(await c.peer.read_exactly(size)) == digest(pattern(size))
    assert await sending == size
    assert file.tell() == size
    # The protocol is back in place.
    assert c.transport.get_protocol() is c.protocol
    await c.settle()


@every_side
async def test_a_part_of_a_file(tls_pair, loop, side, file):
    c = await tls_pair(side=side)
    sent = await loop.sendfile(c.transport, file, 1000, 5000)
    assert sent == 5000
    expected = pattern(MIB + 12_345)[1000:6000]
    assert await c.peer.read_exactly(5000) == expected
    assert file.tell() == 6000


@every_side
async def test_sendfile_to_a_peer_that_is_gone(tls_pair, loop, side, file):
    c = await tls_pair(side=side)
    await c.settle()
    file.seek(0)
    for _ in range(20):
        sending = asyncio.ensure_future(loop.sendfile(c.transport, file, 0))
        await iterations(3)
        if c.peer.sock.fileno() >= 0:
            c.peer.reset()
        try:
            await sending
        except (ConnectionError, RuntimeError):
            break
    else:
        pytest.fail("sendfile never noticed that the peer is gone")
    # asyncio tells the loss to the protocol that is in place just then.
    if not c.protocol.lost:
        await iterations(5)
    if not c.protocol.lost:
        c.protocol.note("lost")
