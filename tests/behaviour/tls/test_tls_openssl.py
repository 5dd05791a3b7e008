"""The openssl command as the peer: renegotiation.

Python's ssl module cannot begin one; the command does when it is told to by a
letter on a line of its own.
"""

from __future__ import annotations

from net_helpers import (
    Recorder,
    client_context,
    listening_socket,
)
from tls_ends import (
    client_of,
    echo,
    renegotiating_context,
    tls_server,
)


def server_on(port, *args):
    return (
        *("s_server", "-accept", f"127.0.0.1:{port}", "-naccept", "1"),
        *("-cert", "localhost.pem", "-key", "localhost.key"),
        *args,
    )


def free_port():
    with listening_socket() as sock:
        return sock.getsockname()[1]


async def connected(loop, openssl, *args):
    """A client of the loop and the s_server it is connected to."""
    port = free_port()
    peer = await openssl(*server_on(port, *args))
    await peer.wait_for(b"ACCEPT")
    _, near = await loop.create_connection(
        Recorder,
        "127.0.0.1",
        port,
        ssl=client_context(),
        server_hostname="localhost",
    )
    return near, peer


async def test_a_client_renegotiates(run, openssl):
    """TLS 1.2, where the server allows it; data goes on before and after."""
    async with tls_server(
        lambda: Recorder(data=echo), renegotiating_context()
    ) as (address, seen):
        peer = await openssl(*client_of(address, "-tls1_2"))
        peer.say(b"before\n")
        await peer.wait_for(b"before")
        for number in range(1, 4):
            peer.say(b"R\n")
            await peer.wait_for(b"RENEGOTIATING", number)
            peer.say(b"after %d\n" % number)
            await peer.wait_for(b"after %d" % number)
        peer.say(b"Q\n")
        assert await peer.wait_end() == 0
        assert await seen[0].wait_lost() is None
    assert seen[0].data == b"before\nafter 1\nafter 2\nafter 3\n"


async def test_a_server_renegotiates(run, loop, openssl):
    """Our answer leaves from inside a read: our program writes nothing."""
    near, peer = await connected(loop, openssl, "-tls1_2", "-state")
    near.transport.write(b"before\n")
    await peer.wait_for(b"before")
    peer.say(b"r\n")
    await peer.wait_for(b"SSL_do_handshake -> 1")
    await peer.wait_for(b"TLS write finished", 2)
    peer.say(b"to you\n")
    assert await near.wait_data(7) == b"to you\n"
    near.transport.write(b"after\n")
    await peer.wait_for(b"after")
    near.transport.close()
    assert await near.wait_lost() is None
    near.check()


async def test_writes_while_a_server_renegotiates(run, loop, openssl):
    """They wait where they must, and none is lost or doubled."""
    near, peer = await connected(loop, openssl, "-tls1_2")
    near.transport.write(b"before\n")
    await peer.wait_for(b"before")
    peer.say(b"r\n")
    count = 2000
    for number in range(count):
        near.transport.write(b"<%06d>\n" % number)
        if number % 50 == 0:
            near.transport.write(b"." * 20_000)
            await peer.wait_for(b"<%06d>" % number)
    await peer.wait_for(b"<%06d>" % (count - 1))
    printed = bytes(peer.output)
    assert b"SSL_do_handshake -> 1" in printed
    places = [printed.find(b"<%06d>" % number) for number in range(count)]
    assert -1 not in places
    assert places == sorted(places)
    near.transport.close()
    assert await near.wait_lost() is None
