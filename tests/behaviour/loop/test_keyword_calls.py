"""Keywords of the loop's calls that no other test is about."""

from __future__ import annotations

import asyncio
import socket

from datagram_helpers import Datagrams
from net_helpers import Recorder, client_context, server_context

LOCAL = ("127.0.0.1", 0)


async def end(server, *protocols):
    for protocol in protocols:
        if not protocol.lost:
            protocol.transport.abort()
        await protocol.wait_lost()
    server.close()
    await server.wait_closed()


async def test_addresses_of_names(loop):
    found = await loop.getaddrinfo(
        host="localhost",
        port=80,
        family=socket.AF_INET,
        type=socket.SOCK_STREAM,
        proto=socket.IPPROTO_TCP,
        flags=socket.AI_CANONNAME,
    )
    assert found == socket.getaddrinfo(
        "localhost",
        80,
        socket.AF_INET,
        socket.SOCK_STREAM,
        socket.IPPROTO_TCP,
        socket.AI_CANONNAME,
    )


async def test_connection_by_keywords(loop):
    far = Recorder()
    server = await loop.create_server(
        protocol_factory=lambda: far,
        host="localhost",
        port=0,
        family=socket.AF_INET,
        flags=socket.AI_PASSIVE,
        backlog=5,
        reuse_address=True,
        reuse_port=False,
        start_serving=True,
    )
    host, port = server.sockets[0].getsockname()
    assert host == "127.0.0.1"
    transport, near = await loop.create_connection(
        protocol_factory=Recorder,
        host=host,
        port=port,
        family=socket.AF_INET,
        proto=socket.IPPROTO_TCP,
        flags=socket.AI_NUMERICHOST,
        local_addr=("127.0.0.1", 0),
        happy_eyeballs_delay=0.2,
        interleave=1,
    )
    transport.write(b"x")
    assert await far.wait_data(1) == b"x"
    await end(server, near, far)


async def test_tls_begun_later_with_time_limits(loop):
    """By an accepted socket that has it at once, and by start_tls."""
    ours, theirs = socket.socketpair()
    near, far = Recorder(), Recorder()
    plain, _ = await loop.create_unix_connection(lambda: near, sock=ours)
    accepted = loop.create_task(
        loop.connect_accepted_socket(
            lambda: far,
            theirs,
            ssl=server_context(),
            ssl_handshake_timeout=15,
            ssl_shutdown_timeout=15,
        )
    )
    secret = await loop.start_tls(
        plain,
        near,
        client_context(),
        server_side=False,
        server_hostname="localhost",
        ssl_handshake_timeout=15,
        ssl_shutdown_timeout=15,
    )
    await accepted
    secret.write(b"x")
    assert await far.wait_data(1) == b"x"
    secret.abort()
    await near.wait_lost()
    await far.wait_lost()


async def test_datagrams_by_keywords(loop):
    far, _ = await loop.create_datagram_endpoint(
        Datagrams,
        local_addr=LOCAL,
        family=socket.AF_INET,
        proto=socket.IPPROTO_UDP,
        flags=socket.AI_NUMERICHOST,
        reuse_port=True,
        allow_broadcast=True,
    )
    sock = far.get_extra_info("socket")
    for option in (socket.SO_REUSEPORT, socket.SO_BROADCAST):
        assert sock.getsockopt(socket.SOL_SOCKET, option)
    near, protocol = await loop.create_datagram_endpoint(
        protocol_factory=Datagrams, remote_addr=sock.getsockname()
    )
    assert near.get_extra_info("peername") == sock.getsockname()
    near.sendto(b"x", addr=None)
    await far.get_protocol().wait("datagram")
    given = socket.socket(type=socket.SOCK_DGRAM)
    given.bind(LOCAL)
    third, other = await loop.create_datagram_endpoint(Datagrams, sock=given)
    near.close()
    far.close()
    third.close()
    await other.wait("lost")
    await protocol.wait("lost")
    await asyncio.sleep(0)
