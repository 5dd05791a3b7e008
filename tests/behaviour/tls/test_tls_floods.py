"""Peers that ask for much, send what costs much, or never get on.

Memory and work stay bounded, data is not harmed, and the end is asyncio's.
What a peer may send before TLS begins is in test_tls_handshake.py.
"""

from __future__ import annotations

import contextlib
import time

from net_helpers import KIB, MIB, Recorder, client_context, iterations, pattern
from tls_ends import (
    PlainPeer,
    calling,
    every_side,
    every_version,
    tls_server,
)

#: What asyncio's marks allow, and a part that is being worked on.
BOUND = MIB


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
        await iterations(1)
        assert c.transport.get_read_buffer_size() < BOUND
    c.transport.resume_reading()
    await c.peer.send(wire[at:])
    assert await c.protocol.wait_data(len(data)) == data


async def fill(c):
    """Write until the protocol is paused; the peer reads nothing."""
    while c.protocol.count("pause") == c.protocol.count("resume"):
        c.transport.write(bytes(64 * KIB))
        assert c.transport.get_write_buffer_size() < BOUND
        await iterations(1)


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
    """They cost no time while idle, and other clients are served."""
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
        await iterations(5)
    assert sum(protocol.count("made") for protocol in seen) == 1
    assert reports == []
