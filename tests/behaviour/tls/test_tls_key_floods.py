"""Peers that change keys, or ask for handshakes, all the time.

A KeyUpdate that asks for our new keys makes OpenSSL write an answer while it
reads.  asyncio keeps the answers that a peer does not take, however many;
fastloop's own TLS stops reading such a peer.  Neither loses data, and the end
is asyncio's.
"""

import asyncio
import contextlib
import socket
import ssl
import time

import pytest
from libssl_calls import LibsslCalls
from net_helpers import (
    KIB,
    MIB,
    client_context,
    iterations,
)

#: What waits to be sent in a TLS transport and the one below it, at most.
BOUND = 512 * KIB
#: How long a record of one KeyUpdate is.
KEY_UPDATE = 27

#: The sides differ in nothing here, and a flood takes long.
one_side = pytest.mark.parametrize("side", ["server"])


@one_side
@pytest.mark.parametrize("asking", [False, True])
async def test_new_keys_do_not_make_the_loop_spin(settled_pair, side, asking):
    """Nothing is left to do once they are read: the loop waits."""
    c = await settled_pair(side=side, version="1.3")
    calls = LibsslCalls(c.peer)
    await c.peer.write(b"data")
    await c.peer.send(calls.seal_key_updates(50, asking))
    if asking:
        # OpenSSL answers once it looks again: all but the last one.
        await c.peer.recv_exactly(KEY_UPDATE * 49)
    await iterations(10)
    before = time.thread_time()
    await asyncio.sleep(0.3)
    assert time.thread_time() - before < 0.1
    assert c.protocol.data == b"data"


class Flood:
    """A peer that sends what *make* makes, and reads nothing."""

    def __init__(self, c, make):
        self.c = c
        self.make = make
        self.below = c.transport._ssl_protocol._transport
        self.wire = b""
        self.sent_bytes = 0
        # The kernel's buffers are small: answers soon wait in ours.
        for sock in (c.socket, c.peer.sock):
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 64 * KIB)
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 64 * KIB)

    async def go_on(self):
        """Until we do not read it any more."""
        while self.below.is_reading():
            await self.send_some()
            waits = self.c.transport.get_write_buffer_size()
            assert waits + self.below.get_write_buffer_size() < BOUND
            # The kernel's buffers and ours are full long before.
            assert self.sent_bytes < 2 * MIB

    async def send_some(self):
        if not self.wire:
            self.wire = self.make()
        with contextlib.suppress(BlockingIOError):
            count = self.c.peer.sock.send(self.wire)
            self.sent_bytes += count
            self.wire = self.wire[count:]
        await iterations(1)

    async def relent(self):
        """Take the answers, and send the rest of what was begun."""
        await self.c.peer.send(self.wire)
        self.wire = b""


def key_flood(c):
    calls = LibsslCalls(c.peer)
    return Flood(c, lambda: calls.seal_key_updates(1000, True))


@pytest.mark.native_tls
@pytest.mark.parametrize("closing", ["not at all", "after", "before"])
async def test_a_peer_that_takes_no_answer_is_not_read(settled_pair, closing):
    """Its cost is bounded, and it is served again once it reads.  The shutdown
    does not read it either, and ends well if it reads.
    """
    side = "client" if closing == "not at all" else "server"
    c = await settled_pair(side=side, version="1.3")
    flood = key_flood(c)
    if closing == "before":
        await flood.send_some()
        c.transport.close()
    await flood.go_on()
    if closing == "not at all":
        reading = asyncio.ensure_future(c.peer.read_exactly(6))
        await flood.relent()
        await c.peer.write(b"behind")
        assert await c.protocol.wait_data(6) == b"behind"
        c.transport.write(b"answer")
        assert await reading == b"answer"
        assert flood.below.is_reading()
        assert c.protocol.count("pause") == c.protocol.count("resume")
        return
    c.transport.close()
    for _ in range(50):
        await flood.send_some()
        assert not flood.below.is_reading()
    # Our close_notify may be before the answers: the peer's socket takes all.
    taking = asyncio.ensure_future(c.peer.recv_all())
    await flood.relent()
    await c.peer.close_notify()
    assert await c.protocol.wait_lost() is None
    assert len(await taking) > 64 * KIB


@pytest.mark.native_tls
async def test_renegotiations_that_a_server_requests_are_refused(settled_pair):
    """TLS 1.2: each refusal is an alert, and the peer reads none."""
    near = client_context()
    near.options |= ssl.OP_NO_RENEGOTIATION
    c = await settled_pair(side="client", version="1.2", near=near)
    calls = LibsslCalls(c.peer)
    flood = Flood(c, lambda: calls.seal_renegotiations(1000))
    await flood.go_on()
    # To the peer's OpenSSL a refusal is an error: its socket takes them.
    taking = asyncio.ensure_future(c.peer.recv_all())
    await flood.relent()
    await c.peer.write(b"behind")
    assert await c.protocol.wait_data(6) == b"behind"
    assert flood.below.is_reading()
    c.transport.abort()
    assert len(await taking) > 64 * KIB
