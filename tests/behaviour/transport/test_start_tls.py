"""loop.start_tls and StreamWriter.start_tls: TLS on a connection in use."""

from __future__ import annotations

import asyncio
import contextlib
import ssl

import pytest
from net_helpers import (
    MIB,
    PY314,
    Peer,
    Recorder,
    client_context,
    digest,
    pattern,
    server_context,
    tcp_socketpair,
    turns,
)


async def plain_pair(loop):
    """Two plain transports of the loop that are joined."""
    a, b = tcp_socketpair()
    near_transport, near = await loop.create_connection(Recorder, sock=a)
    far_transport, far = await loop.connect_accepted_socket(Recorder, b)
    return near, far


async def upgrade(loop, near, far, **options):
    """Both sides start TLS; returns the new (client's, server's)."""
    return await asyncio.gather(
        loop.start_tls(
            near.transport,
            near,
            client_context(),
            server_hostname="localhost",
            **options,
        ),
        loop.start_tls(
            far.transport, far, server_context(), server_side=True, **options
        ),
    )


async def finish(*protocols):
    for protocol in protocols:
        await protocol.wait_lost()


def test_both_sides(run, loop):
    async def main():
        near, far = await plain_pair(loop)
        near.transport.write(b"STARTTLS")
        assert await far.wait_data(8) == b"STARTTLS"
        far.transport.write(b"OK")
        assert await near.wait_data(2) == b"OK"
        client, server = await upgrade(loop, near, far)
        for transport in (client, server):
            assert isinstance(transport, asyncio.Transport)
            assert transport.get_extra_info("ssl_object") is not None
            assert transport.get_extra_info("peername") is not None
        # connection_made is not called again.
        assert near.count("made") == far.count("made") == 1
        client.write(b"secret")
        assert (await far.wait_data(14))[8:] == b"secret"
        server.write(b"answer")
        assert (await near.wait_data(8))[2:] == b"answer"
        client.close()
        await finish(near, far)
        assert near.exc is None and far.exc is None
        near.check()
        far.check()

    run(main())


def test_large_transfer_after_the_upgrade(run, loop):
    data = pattern(3 * MIB)

    async def main():
        near, far = await plain_pair(loop)
        client, server = await upgrade(loop, near, far)
        client.write(data)
        await far.wait_data(len(data))
        assert digest(far.data) == digest(data)
        server.close()
        await finish(near, far)

    run(main())


def test_writes_before_the_upgrade_leave_first(run, loop):
    """What was written just before goes out as plain text."""

    async def main():
        a, b = tcp_socketpair()
        peer = Peer(b)
        transport, protocol = await loop.create_connection(Recorder, sock=a)
        transport.write(b"one ")
        transport.write(b"two")
        task = loop.create_task(
            loop.start_tls(
                transport,
                protocol,
                client_context(),
                server_hostname="localhost",
            )
        )
        data = await peer.recv_exactly(8)
        assert data[:7] == b"one two"
        # 22 begins a handshake record.
        assert data[7] == 22
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        await turns(3)
        peer.close()

    run(main())


def test_tls_in_tls(run, loop):
    async def main():
        near, far = await plain_pair(loop)
        client, server = await upgrade(loop, near, far)
        near.transport, far.transport = client, server
        inner_client, inner_server = await upgrade(loop, near, far)
        inner_client.write(b"twice")
        assert await far.wait_data(5) == b"twice"
        inner_client.abort()
        await finish(near, far)

    run(main())


@pytest.mark.parametrize("context", [None, True, object()])
def test_wrong_context(run, loop, context):
    async def main():
        near, far = await plain_pair(loop)
        with pytest.raises(TypeError, match="sslcontext is expected"):
            await loop.start_tls(near.transport, near, context)
        near.transport.write(b"still plain")
        assert await far.wait_data(11) == b"still plain"
        near.transport.close()
        await finish(near, far)

    run(main())


def test_wrong_transport(run, loop):
    async def main():
        with pytest.raises(TypeError, match="is not supported by start_tls"):
            await loop.start_tls(
                asyncio.Transport(), Recorder(), client_context()
            )

    run(main())


@pytest.mark.reports
def test_a_failing_handshake_closes_the_connection(run, loop):
    async def main():
        near, far = await plain_pair(loop)
        results = await asyncio.gather(
            loop.start_tls(
                near.transport,
                near,
                client_context(),
                server_hostname="wrong.test",
            ),
            loop.start_tls(
                far.transport, far, server_context(), server_side=True
            ),
            return_exceptions=True,
        )
        assert isinstance(results[0], ssl.SSLCertVerificationError)
        for protocol in (near, far):
            protocol.transport.abort()
        await turns(10)
        assert near.transport.is_closing()

    run(main())


@pytest.mark.reports
def test_handshake_timeout(run, loop):
    async def main():
        a, b = tcp_socketpair()
        peer = Peer(b)
        transport, protocol = await loop.create_connection(Recorder, sock=a)
        with pytest.raises(ConnectionAbortedError, match="longer than"):
            await loop.start_tls(
                transport,
                protocol,
                client_context(),
                server_hostname="localhost",
                ssl_handshake_timeout=0.02,
            )
        with contextlib.suppress(ConnectionResetError):
            await peer.recv_all()
        assert transport.is_closing()
        await turns(5)
        peer.close()

    run(main())


@pytest.mark.reports
def test_peer_gone_during_the_handshake(run, loop):
    async def main():
        a, b = tcp_socketpair()
        transport, protocol = await loop.create_connection(Recorder, sock=a)
        task = loop.create_task(
            loop.start_tls(
                transport,
                protocol,
                client_context(),
                server_hostname="localhost",
            )
        )
        await turns(3)
        b.close()
        with pytest.raises((ConnectionError, ssl.SSLError)):
            await task
        await turns(5)

    run(main())


@pytest.mark.parametrize("turn", [0, 1, 2, 3, 6])
def test_cancelled(run, loop, turn):
    async def main():
        a, b = tcp_socketpair()
        peer = Peer(b)
        transport, protocol = await loop.create_connection(Recorder, sock=a)
        task = loop.create_task(
            loop.start_tls(
                transport,
                protocol,
                client_context(),
                server_hostname="localhost",
            )
        )
        await turns(turn)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        if not transport.is_closing():
            # Cancelled before it began.
            assert turn == 0
            transport.abort()
        with contextlib.suppress(ConnectionResetError):
            await peer.recv_all()
        await turns(3)
        peer.close()

    run(main())


def test_streams_upgrade_both_sides(run, loop):
    """StreamWriter.start_tls came with 3.11."""
    done = loop.create_future()

    async def serve(reader, writer):
        assert await reader.readline() == b"STARTTLS\n"
        writer.write(b"OK\n")
        await writer.drain()
        await writer.start_tls(server_context())
        line = await reader.readline()
        writer.write(line.upper())
        await writer.drain()
        writer.close()
        with contextlib.suppress(ConnectionError):
            await writer.wait_closed()
        done.set_result(line)

    async def main():
        server = await asyncio.start_server(serve, "127.0.0.1", 0)
        reader, writer = await asyncio.open_connection(
            *server.sockets[0].getsockname()
        )
        writer.write(b"STARTTLS\n")
        assert await reader.readline() == b"OK\n"
        await writer.start_tls(client_context(), server_hostname="localhost")
        assert writer.get_extra_info("ssl_object") is not None
        writer.write(b"hello\n")
        assert await reader.readline() == b"HELLO\n"
        assert await reader.read() == b""
        writer.close()
        await writer.wait_closed()
        assert await done == b"hello\n"
        server.close()

    run(main())


@pytest.mark.skipif(not PY314, reason="buffered data is kept from 3.14 on")
def test_data_already_buffered_belongs_to_the_handshake(run, loop):
    """A client that does not wait for the answer to STARTTLS."""
    done = loop.create_future()

    async def serve(reader, writer):
        await reader.readline()
        # Let the client's hello arrive in the reader's buffer.
        while not reader._buffer:
            await asyncio.sleep(0)
        await writer.start_tls(server_context())
        done.set_result(await reader.readline())
        writer.close()

    async def main():
        server = await asyncio.start_server(serve, "127.0.0.1", 0)
        reader, writer = await asyncio.open_connection(
            *server.sockets[0].getsockname()
        )
        writer.write(b"STARTTLS\n")
        await writer.start_tls(client_context(), server_hostname="localhost")
        writer.write(b"hello\n")
        assert await done == b"hello\n"
        writer.close()
        with contextlib.suppress(ConnectionError):
            await writer.wait_closed()
        server.close()

    run(main())
