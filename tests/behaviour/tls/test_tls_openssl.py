"""The openssl command as the peer: renegotiation and new keys.

Python's ssl module can begin neither; the command does both when it is told
to by a letter on a line of its own.
"""

from __future__ import annotations

import pytest
from net_helpers import (
    MIB,
    Recorder,
    client_context,
    listening_socket,
)
from tls_ends import (
    client_of,
    echo,
    every_version,
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


async def connected(loop, openssl, *args, **hooks):
    """A client of the loop and the s_server it is connected to."""
    port = free_port()
    peer = await openssl(*server_on(port, *args))
    await peer.wait_for(b"ACCEPT")
    transport, near = await loop.create_connection(
        lambda: Recorder(**hooks),
        "127.0.0.1",
        port,
        ssl=client_context(),
        server_hostname="localhost",
    )
    return near, peer


@every_version
async def test_a_client(run, openssl, version):
    """It sends a line, reads the answer and says good-bye."""
    async with tls_server(lambda: Recorder(data=echo)) as (address, seen):
        peer = await openssl(
            *client_of(address, "-tls" + version.replace(".", "_"))
        )
        peer.say(b"hello there\n")
        await peer.wait_for(b"Verify return code: 0 (ok)")
        await peer.wait_for(b"hello there")
        peer.say(b"Q\n")
        assert await peer.wait_end() == 0
        assert await seen[0].wait_lost() is None
    assert seen[0].data == b"hello there\n"
    assert seen[0].names == ["made", "data", "eof", "lost"]


@every_version
async def test_a_server(run, loop, openssl, version):
    near, peer = await connected(
        loop, openssl, "-tls" + version.replace(".", "_")
    )
    near.transport.write(b"hello there\n")
    await peer.wait_for(b"hello there")
    peer.say(b"an answer\n")
    assert await near.wait_data(10) == b"an answer\n"
    peer.say(b"Q\n")
    assert await near.wait_lost() is None
    assert near.names == ["made", "data", "eof", "lost"]
    near.check()


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


async def test_a_client_may_not_renegotiate(run, openssl):
    """OpenSSL's default: the client is refused, and the end is orderly."""
    async with tls_server(lambda: Recorder(data=echo)) as (address, seen):
        peer = await openssl(*client_of(address, "-tls1_2"))
        peer.say(b"before\n")
        await peer.wait_for(b"before")
        peer.say(b"R\n")
        await peer.wait_for(b"RENEGOTIATING")
        assert await peer.wait_end() != 0
        exc = await seen[0].wait_lost()
        assert exc is None or isinstance(exc, OSError)
    assert seen[0].data == b"before\n"


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


@pytest.mark.parametrize("letter", [b"k", b"K"])
async def test_a_client_changes_its_keys(run, openssl, letter):
    """TLS 1.3; the capital letter asks for our new keys as well."""
    async with tls_server(lambda: Recorder(data=echo)) as (address, seen):
        peer = await openssl(*client_of(address, "-tls1_3"))
        peer.say(b"before\n")
        await peer.wait_for(b"before")
        for number in range(1, 6):
            peer.say(letter + b"\n")
            await peer.wait_for(b"KEYUPDATE", number)
            peer.say(b"after %d\n" % number)
            await peer.wait_for(b"after %d" % number)
        peer.say(b"Q\n")
        assert await peer.wait_end() == 0
        assert await seen[0].wait_lost() is None
    assert seen[0].data.endswith(b"after 5\n")


@pytest.mark.parametrize("letter", [b"k", b"K"])
async def test_a_server_changes_its_keys(run, loop, openssl, letter):
    near, peer = await connected(loop, openssl, "-tls1_3", "-msg")
    near.transport.write(b"before\n")
    await peer.wait_for(b"before")
    total = updates = 0
    for number in range(1, 6):
        peer.say(letter + b"\n")
        updates += 1
        await peer.wait_for(b", KeyUpdate", updates)
        peer.say(b"to you %d\n" % number)
        total += 9
        await near.wait_data(total)
        near.transport.write(b"after %d\n" % number)
        await peer.wait_for(b"after %d" % number)
        if letter == b"K":
            # Ours was sent with that write.
            updates += 1
            await peer.wait_for(b", KeyUpdate", updates)
    near.transport.write(b"x" * MIB + b"end\n")
    await peer.wait_for(b"end\n")
    near.transport.close()
    assert await near.wait_lost() is None
    near.check()
