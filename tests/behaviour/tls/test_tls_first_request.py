"""The first data of a TLS connection, with the peer's EOF right behind it.

A peer that sends its request and then shuts its end down still reads the
reply.
"""

from __future__ import annotations

import asyncio

import pytest
from net_helpers import Recorder
from tls_ends import contexts, meet_client, meet_server

#: Where the peer has the last word of the handshake.
every_last_word = pytest.mark.parametrize(
    ("side", "version"), [("client", "1.2"), ("server", "1.3")]
)


class Replies(Recorder):
    """Replies when it gets the data."""

    def data_received(self, data):
        super().data_received(data)
        self.transport.write(b"reply to " + data)


class StreamReplies(asyncio.StreamReaderProtocol):
    """Replies from a task that reads."""

    def __init__(self):
        super().__init__(asyncio.StreamReader(), self.reply)
        self.over = asyncio.Event()

    async def reply(self, reader, writer):
        writer.write(b"reply to " + await reader.read(100))
        writer.close()

    def connection_lost(self, exc):
        super().connection_lost(exc)
        self.over.set()

    async def wait_lost(self):
        await self.over.wait()


#: The second request's records have 64 KiB: as much as is read at once.
@pytest.mark.parametrize("request_", [b"request", bytes(65_448)])
@every_last_word
@pytest.mark.parametrize("kind", [Replies, StreamReplies])
async def test_a_request_with_eof_behind_it_gets_its_reply(
    loop, side, version, kind, request_
):
    protocol = kind()
    near, far = contexts(side, version)
    task = None
    if side == "client":
        task, peer = await meet_client(lambda: protocol, near, far)
    else:
        peer = await meet_server(lambda: protocol, near, far)
    await peer.attempt(peer.tls.do_handshake)
    await peer.send(peer.outgoing.read() + peer.seal(request_))
    peer.send_eof()
    assert await peer.read_exactly(9) == b"reply to "
    await protocol.wait_lost()
    if task is not None:
        await task
    peer.close()
