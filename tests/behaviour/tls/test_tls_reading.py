"""What a protocol reads from a TLS transport, pauses and buffers."""

from __future__ import annotations

import pytest
from net_helpers import (
    KIB,
    BufferedRecorder,
    Recorder,
    iterations,
)
from tls_ends import every_side


@every_side
async def test_read_buffer_limits(tls_pair, side):
    """TLS transports alone have them."""
    c = await tls_pair(side=side)
    assert c.transport.get_read_buffer_limits() == (64 * KIB, 256 * KIB)
    c.transport.set_read_buffer_limits(high=1000, low=10)
    assert c.transport.get_read_buffer_limits() == (10, 1000)
    with pytest.raises(ValueError, match="must be >= low"):
        c.transport.set_read_buffer_limits(high=1, low=2)
    assert c.transport.get_read_buffer_size() == 0
    await c.settle()


@every_side
async def test_a_ragged_end_while_reading_is_paused(settled_pair, side):
    c = await settled_pair(side=side)
    c.transport.pause_reading()
    await c.peer.write(b"last")
    c.peer.send_eof()
    await iterations(20)
    assert c.protocol.names == ["made"]
    c.transport.resume_reading()
    assert await c.protocol.wait_lost() is None
    assert c.protocol.data == b"last"
    assert c.protocol.names == ["made", "data", "eof", "lost"]


@pytest.mark.native_tls
@every_side
@pytest.mark.parametrize("kind", [Recorder, BufferedRecorder])
@pytest.mark.parametrize("ends", [False, True], ids=["goes on", "ends"])
async def test_set_protocol_inside_get_buffer(tls_pair, side, kind, ends):
    """The new protocol reads.

    asyncio tells it of what was read into the old one's buffer.
    """

    def change(protocol, hint):
        if not second.events:
            protocol.transport.set_protocol(second)
        return protocol.buffer

    first = BufferedRecorder(get_buffer=change)
    second = kind(eof=lambda p: c.transport.set_protocol(first))
    c = await tls_pair(first, side=side)
    await c.peer.send(
        c.peer.seal(b"data") + (c.peer.seal_close() if ends else b"")
    )
    assert await second.wait_data(4) == b"data"
    assert first.data == b""
    if not ends:
        c.transport.set_protocol(first)
