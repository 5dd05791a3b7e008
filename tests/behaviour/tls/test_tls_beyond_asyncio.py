"""Where asyncio's TLS loses bytes, time or an error, and ours does not.

asyncio fails each of these.  They are expected of the native engine, however
it does TLS, and are skipped where asyncio's SSLProtocol does it.
"""

import asyncio
import contextlib

import pytest
from net_helpers import (
    MIB,
    iterations,
    pattern,
)
from tls_ends import every_side, every_version

pytestmark = pytest.mark.native_tls


async def test_the_engine_is_native(tls_pair):
    """Else all that is below would prove nothing."""
    c = await tls_pair()
    assert type(c.transport._ssl_protocol).__module__ != "asyncio.sslproto"


@every_side
@every_version
@pytest.mark.parametrize("size", [1, 100_000])
async def test_data_that_crosses_our_close_notify(
    settled_pair, side, version, size
):
    """The peer did not know yet: that is no error, and the data is dropped."""
    c = await settled_pair(side=side, version=version)
    c.transport.close()
    await c.peer.write(pattern(size))
    assert await c.peer.read() == b""
    await c.peer.write(b"still not")
    await c.peer.close_notify()
    assert await c.protocol.wait_lost() is None
    assert c.protocol.data == b""
    assert c.protocol.names == ["made", "eof", "lost"]
    await c.peer.expect_end()


@every_side
@pytest.mark.parametrize("waiting", [10, 4 * MIB])
async def test_close_while_reading_is_paused(settled_pair, side, waiting):
    """What waits to be read is dropped, and the shutdown ends."""
    c = await settled_pair(side=side, ssl_shutdown_timeout=8)
    c.transport.pause_reading()
    sending = asyncio.ensure_future(c.peer.write(bytes(waiting)))
    await iterations(50)
    c.transport.close()
    await sending
    assert await c.peer.read() == b""
    await c.peer.close_notify()
    assert await c.protocol.wait_lost() is None
    assert c.protocol.data == b""


@every_side
async def test_close_ends_though_the_peer_goes_on_sending(settled_pair, side):
    """A download that was given up does not last as long as the time limit."""
    c = await settled_pair(side=side, ssl_shutdown_timeout=1000)

    async def send():
        with contextlib.suppress(OSError):
            while True:
                await c.peer.write(bytes(MIB))

    sending = asyncio.ensure_future(send())
    c.transport.close()
    assert await c.protocol.wait_lost() is None
    await sending


@every_side
async def test_a_transport_that_was_closed_twice_answers(tls_pair, side):
    """asyncio's forgets its SSLProtocol, and each later call fails."""
    c = await tls_pair(side=side)
    await c.settle()
    for _ in range(3):
        c.transport.close()
    info = c.transport.get_extra_info
    assert info("ssl_object") is not None
    assert c.transport.get_protocol() is c.protocol
    assert c.transport.get_write_buffer_size() == 0
    c.transport.set_write_buffer_limits(high=100)
    c.transport.set_protocol(c.protocol)
    c.transport.write(b"dropped")
    c.transport.abort()
    assert await c.protocol.wait_lost() is None


@every_side
async def test_read_marks_of_0_do_not_stop_the_wire(settled_pair, side):
    """asyncio pauses the transport below with nothing in memory."""
    c = await settled_pair(side=side)
    c.transport.set_read_buffer_limits(0)
    await c.peer.write(b"heard")
    assert await c.protocol.wait_data(5) == b"heard"
