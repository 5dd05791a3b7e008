"""Peers that ask for much, send what costs much, or never get on.

Memory and work stay bounded, data is not harmed, and the end is asyncio's.
What a peer may send before TLS begins is in test_tls_handshake.py.
"""

from __future__ import annotations

import contextlib
import ssl
import time

import pytest
from net_helpers import KIB, MIB, Recorder, client_context, pattern, turns
from tls_ends import (
    PlainPeer,
    calling,
    client_of,
    echo,
    every_side,
    every_version,
    renegotiating_context,
    tls_server,
)

#: What asyncio's marks allow, and a part that is being worked on.
BOUND = MIB


async def flood(peer, letter, answer, count):
    """Have the command do *letter* so often, one after another."""
    for number in range(1, count + 1):
        peer.say(letter + b"\n")
        await peer.wait_for(answer, number)


async def end_well(peer, protocol):
    peer.say(b"last\n")
    await peer.wait_for(b"last")
    assert protocol.transport.get_write_buffer_size() == 0
    peer.say(b"Q\n")
    assert await peer.wait_end() == 0
    assert await protocol.wait_lost() is None


async def test_a_client_asks_for_new_keys_all_the_time(run, openssl):
    """Each request is answered at once, and no answer stays behind."""
    async with tls_server(lambda: Recorder(data=echo)) as (address, seen):
        peer = await openssl(*client_of(address, "-tls1_3"))
        peer.say(b"first\n")
        await peer.wait_for(b"first")
        await flood(peer, b"K", b"KEYUPDATE", 300)
        await end_well(peer, seen[0])
    assert seen[0].data == b"first\nlast\n"


async def test_a_client_renegotiates_all_the_time(run, openssl):
    """Where the server allows it: each handshake costs, none is kept."""
    async with tls_server(
        lambda: Recorder(data=echo), renegotiating_context()
    ) as (address, seen):
        peer = await openssl(*client_of(address, "-tls1_2"))
        peer.say(b"first\n")
        await peer.wait_for(b"first")
        await flood(peer, b"R", b"RENEGOTIATING", 40)
        await end_well(peer, seen[0])
    assert seen[0].data == b"first\nlast\n"


def tiny_records(peer, count):
    """Records of one byte each, and the bytes."""
    data = pattern(count)
    return b"".join(peer.seal(data[at : at + 1]) for at in range(count)), data


@every_side
@every_version
async def test_many_tiny_records(settled_pair, side, version):
    """They are joined: a byte does not cost a call of the protocol."""
    c = await settled_pair(side=side, version=version)
    before = c.protocol.count("data")
    wire, data = tiny_records(c.peer, 20_000)
    await c.peer.send(wire)
    assert await c.protocol.wait_data(len(data)) == data
    assert c.protocol.count("data") - before < len(data) / 10


@every_side
async def test_many_tiny_records_to_a_paused_transport(settled_pair, side):
    c = await settled_pair(side=side)
    c.transport.pause_reading()
    wire, data = tiny_records(c.peer, 60_000)
    below = c.transport._ssl_protocol._transport
    at = 0
    while below.is_reading():
        with contextlib.suppress(BlockingIOError):
            at += c.peer.sock.send(wire[at : at + 64 * KIB])
        await turns(1)
        assert c.transport.get_read_buffer_size() < BOUND
    c.transport.resume_reading()
    await c.peer.send(wire[at:])
    assert await c.protocol.wait_data(len(data)) == data


#: The largest length that TLS allows is 16 KiB + 256, or + 2048 before 1.3.
@every_side
@every_version
@pytest.mark.parametrize("length", [0x4801, 0xFFFF])
async def test_a_record_of_a_length_that_is_not_allowed(
    settled_pair, side, version, length
):
    """Its bytes are not waited for."""
    c = await settled_pair(side=side, version=version)
    await c.peer.send(b"\x17\x03\x03" + length.to_bytes(2, "big"))
    exc = await c.protocol.wait_lost()
    assert isinstance(exc, ssl.SSLError)
    assert c.protocol.names == ["made", "lost"]


@every_side
async def test_plain_text_after_the_handshake(settled_pair, side):
    c = await settled_pair(side=side)
    with contextlib.suppress(ConnectionError):
        await c.peer.send(b"GET / HTTP/1.1\r\n" * 10_000)
    exc = await c.protocol.wait_lost()
    assert isinstance(exc, OSError)
    assert c.protocol.names == ["made", "lost"]


async def fill(c):
    """Write until the protocol is paused; the peer reads nothing."""
    while c.protocol.count("pause") == c.protocol.count("resume"):
        c.transport.write(bytes(64 * KIB))
        assert c.transport.get_write_buffer_size() < BOUND
        await turns(1)


@every_side
async def test_a_peer_that_never_reads_is_cut_off(tls_pair, side):
    """After close() it has as long as any other to take what waits."""
    c = await tls_pair(side=side, ssl_shutdown_timeout=0.1)
    await c.settle()
    await fill(c)
    c.transport.close()
    exc = await c.protocol.wait_lost()
    assert type(exc) is TimeoutError
    assert str(exc) == "SSL shutdown timed out"


@every_side
async def test_a_peer_that_never_reads_and_sends(settled_pair, side):
    """What it sends is delivered: the directions do not block each other."""
    c = await settled_pair(side=side)
    await fill(c)
    data = pattern(2 * MIB)
    await c.peer.write(data)
    assert await c.protocol.wait_data(len(data)) == data
    assert c.transport.get_write_buffer_size() < BOUND
    c.transport.abort()
    assert await c.protocol.wait_lost() is None


async def test_peers_that_never_finish_the_handshake(run, loop, reports):
    """They cost no time while they do nothing, and hinder nobody."""
    async with tls_server(ssl_handshake_timeout=0.5) as (address, seen):
        hello = b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03"
        peers = [PlainPeer(await calling(loop, address)) for _ in range(50)]
        for number, peer in enumerate(peers):
            await peer.send(hello[: number % len(hello)])
        _, near = await loop.create_connection(
            Recorder,
            *address,
            ssl=client_context(),
            server_hostname="localhost",
        )
        near.transport.close()
        assert await near.wait_lost() is None
        spent = time.thread_time()
        for peer in peers:
            assert await peer.expect_end() == b""
            peer.close()
        assert time.thread_time() - spent < 0.4
        await turns(5)
    assert sum(protocol.count("made") for protocol in seen) == 1
    assert reports == []
