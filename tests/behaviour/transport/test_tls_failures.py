"""TLS handshakes that fail or take too long, and shutdowns that hang.

Both ends run on the loop under test unless the far end has to misbehave;
then it is a plain socket, or a blocking ssl.SSLSocket in a thread.
"""

from __future__ import annotations

import contextlib
import socket
import ssl
import threading

import pytest
from net_helpers import (
    Peer,
    Recorder,
    client_context,
    listening_socket,
    server_context,
    spin,
    tcp_socketpair,
    turns,
)
from patience import PATIENCE


async def refuse(loop, *, server=None, client=None, hostname="localhost"):
    """A connect whose handshake fails; returns its error."""
    far = []

    def factory():
        far.append(Recorder())
        return far[-1]

    listener = await loop.create_server(
        factory, "127.0.0.1", 0, ssl=server or server_context()
    )
    near = Recorder()
    with pytest.raises((ssl.SSLError, ConnectionError)) as caught:
        await loop.create_connection(
            lambda: near,
            *listener.sockets[0].getsockname(),
            ssl=client or client_context(),
            server_hostname=hostname,
        )
    await spin(lambda: far)
    await turns(20)
    listener.close()
    assert near.names == []
    # 3.11 and later never show a protocol a connection without handshake.
    assert all(protocol.names in ([], ["lost"]) for protocol in far)
    return caught.value


@pytest.mark.reports
def test_an_authority_that_is_not_trusted(run, loop):
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)

    async def main():
        exc = await refuse(loop, client=context)
        assert isinstance(exc, ssl.SSLCertVerificationError)

    run(main())


@pytest.mark.reports
def test_a_certificate_of_another_name(run, loop):
    async def main():
        exc = await refuse(loop, hostname="wrong.test")
        assert isinstance(exc, ssl.SSLCertVerificationError)
        assert "wrong.test" in str(exc)

    run(main())


@pytest.mark.reports
def test_no_version_in_common(run, loop):
    client, server = client_context(), server_context()
    client.maximum_version = ssl.TLSVersion.TLSv1_2
    server.minimum_version = ssl.TLSVersion.TLSv1_3

    async def main():
        exc = await refuse(loop, client=client, server=server)
        assert isinstance(exc, (ssl.SSLError, ConnectionError))

    run(main())


@pytest.mark.reports
def test_a_server_that_speaks_something_else(run, loop):
    async def main():
        with listening_socket() as listener:
            task = loop.create_task(
                loop.create_connection(
                    Recorder,
                    *listener.getsockname(),
                    ssl=client_context(),
                    server_hostname="localhost",
                )
            )
            sock, _ = await loop.sock_accept(listener)
            peer = Peer(sock)
            await peer.recv()
            await peer.send(b"HTTP/1.1 400 Bad Request\r\n\r\n")
            with pytest.raises(ssl.SSLError):
                await task
            await peer.recv()
            peer.close()

    run(main())


@pytest.mark.reports
@pytest.mark.parametrize("what", [b"GET / HTTP/1.1\r\n\r\n", b"", None])
def test_a_client_that_does_not_shake_hands(run, loop, what):
    """Garbage, an end of stream, a reset: the server lives on."""

    async def main():
        protocols = []

        def factory():
            protocols.append(Recorder())
            return protocols[-1]

        listener = await loop.create_server(
            factory, "127.0.0.1", 0, ssl=server_context()
        )
        address = listener.sockets[0].getsockname()
        peer = Peer(socket.create_connection(address))
        if what is None:
            await spin(lambda: protocols)
            peer.reset()
        elif what:
            await peer.send(what)
            with contextlib.suppress(ConnectionResetError):
                await peer.recv_all()
            peer.close()
        else:
            peer.send_eof()
            with contextlib.suppress(ConnectionResetError):
                await peer.recv_all()
            peer.close()
        await turns(10)
        assert protocols[0].count("made") == 0
        _, near = await loop.create_connection(
            Recorder,
            *address,
            ssl=client_context(),
            server_hostname="localhost",
        )
        near.transport.write(b"served")
        await spin(lambda: len(protocols) == 2)
        assert await protocols[1].wait_data(6) == b"served"
        near.transport.close()
        await near.wait_lost()
        await protocols[1].wait_lost()
        listener.close()

    run(main())


@pytest.mark.reports
@pytest.mark.parametrize("side", ["client", "server"])
def test_handshake_timeout(run, loop, side):
    """A silent peer: an error for the client, the end for the server."""

    async def main():
        if side == "client":
            with listening_socket() as listener:
                with pytest.raises(ConnectionAbortedError, match="longer th"):
                    await loop.create_connection(
                        Recorder,
                        *listener.getsockname(),
                        ssl=client_context(),
                        server_hostname="localhost",
                        ssl_handshake_timeout=0.02,
                    )
        else:
            protocols = []

            def factory():
                protocols.append(Recorder())
                return protocols[-1]

            server = await loop.create_server(
                factory,
                "127.0.0.1",
                0,
                ssl=server_context(),
                ssl_handshake_timeout=0.02,
            )
            address = server.sockets[0].getsockname()
            peer = Peer(socket.create_connection(address))
            with contextlib.suppress(ConnectionResetError):
                assert await peer.recv() == b""
            assert protocols[0].count("made") == 0
            peer.close()
            server.close()

    run(main())


@pytest.mark.parametrize("value", [0, -1])
def test_handshake_timeout_must_be_positive(run, loop, value):
    async def main():
        near, far = tcp_socketpair()
        with far, near, pytest.raises(ValueError, match="should be a posit"):
            await loop.create_connection(
                Recorder,
                sock=near,
                ssl=client_context(),
                server_hostname="localhost",
                ssl_handshake_timeout=value,
            )

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("sys.unraisablehook", lambda unraisable: None)
        run(main())


@pytest.mark.reports
def test_shutdown_timeout(run, loop):
    """A peer that never answers close_notify is cut off."""

    async def main():
        far = Recorder()
        server = await loop.create_server(
            lambda: far,
            "127.0.0.1",
            0,
            ssl=server_context(),
            ssl_shutdown_timeout=0.05,
        )
        address = server.sockets[0].getsockname()
        ready, release = threading.Event(), threading.Event()

        def client():
            raw = socket.create_connection(address)
            tls = client_context().wrap_socket(
                raw, server_hostname="localhost"
            )
            tls.send(b"hello")
            ready.set()
            release.wait(PATIENCE)
            tls.close()

        thread = threading.Thread(target=client)
        thread.start()
        try:
            await far.wait_data(5)
            started = loop.time()
            far.transport.close()
            exc = await far.wait_lost()
            assert loop.time() - started < 5
            assert exc is None or isinstance(exc, TimeoutError)
        finally:
            release.set()
            thread.join(PATIENCE)
        server.close()

    run(main())
