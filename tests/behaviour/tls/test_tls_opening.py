"""ssl= in the calls that open connections and servers."""

from __future__ import annotations

import asyncio
import ssl

import pytest
from net_helpers import (
    Recorder,
    client_context,
    iterations,
    server_context,
    tcp_socketpair,
)
from tls_ends import tls_server


async def talk(near, far):
    """Bytes both ways, then a clean end."""
    near.transport.write(b"ping")
    assert await far.wait_data(4) == b"ping"
    far.transport.write(b"pong")
    assert await near.wait_data(4) == b"pong"
    far.transport.close()
    assert await near.wait_lost() is None
    assert await far.wait_lost() is None


async def test_over_a_unix_socket(loop, tmp_path):
    path, far = str(tmp_path / "s"), Recorder()
    limits = {"ssl_handshake_timeout": 15, "ssl_shutdown_timeout": 15}
    server = await loop.create_unix_server(
        lambda: far, path=path, ssl=server_context(), **limits
    )
    _, near = await loop.create_unix_connection(
        Recorder,
        path=path,
        ssl=client_context(),
        server_hostname="localhost",
        **limits,
    )
    await far.wait_for("made")
    await talk(near, far)
    server.close()


async def test_over_given_sockets(loop):
    """create_connection(sock=) against connect_accepted_socket."""
    a, b = tcp_socketpair()
    a.setblocking(False)
    b.setblocking(False)
    (_, near), (_, far) = await asyncio.gather(
        loop.create_connection(
            Recorder, sock=a, ssl=client_context(), server_hostname="localhost"
        ),
        loop.connect_accepted_socket(Recorder, b, ssl=server_context()),
    )
    await talk(near, far)


@pytest.mark.reports
async def test_true_is_the_default_context(loop):
    """It trusts the system's authorities, so ours is refused."""
    async with tls_server() as (address, _):
        with pytest.raises(ssl.SSLCertVerificationError):
            await loop.create_connection(
                Recorder, *address, ssl=True, server_hostname="localhost"
            )
        await iterations(20)


async def test_the_server_hostname_defaults_to_the_host(loop):
    async with tls_server() as (address, protocols):
        transport, near = await loop.create_connection(
            Recorder, "127.0.0.1", address[1], ssl=client_context()
        )
        ssl_object = transport.get_extra_info("ssl_object")
        assert ssl_object.server_hostname == "127.0.0.1"
        transport.close()
        await near.wait_lost()
        await protocols[0].wait_lost()
