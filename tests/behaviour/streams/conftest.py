"""The fixture that opens readers and writers on a plain socket."""

import asyncio
import contextlib

import pytest
from net_helpers import Peer, tcp_socketpair


@pytest.fixture
def opened(run):
    """Return what opens a (reader, writer, peer), which is closed after."""
    made = []

    async def open_one(**options):
        near, far = tcp_socketpair()
        reader, writer = await asyncio.open_connection(sock=near, **options)
        peer = Peer(far)
        made.append((writer, peer))
        return reader, writer, peer

    async def close_all():
        for writer, peer in made:
            writer.close()
            peer.close()
            with contextlib.suppress(ConnectionError):
                await writer.wait_closed()

    yield open_one
    run(close_all())
