"""How a connection ends: close, abort, and the one connection_lost.

connection_lost comes exactly once, in an iteration of its own, after all
buffered data was sent (close) or dropped (abort), and no call comes after it.
"""

from __future__ import annotations

import asyncio

import pytest
from net_helpers import (
    MIB,
    Recorder,
    every_kind,
    every_kind_and_tls,
    iterations,
    pattern,
)

ENDINGS = ["close", "abort"]


@pytest.mark.parametrize("ending", ENDINGS)
@every_kind
async def test_lost_comes_later_and_once(transport_pair, ending):
    c = await transport_pair()
    assert not c.transport.is_closing()
    assert getattr(c.transport, ending)() is None
    assert c.transport.is_closing()
    assert c.protocol.names == ["made"]
    await iterations(1)
    assert c.protocol.names == ["made", "lost"]
    assert c.protocol.exc is None
    await iterations(5)
    assert c.protocol.count("lost") == 1
    assert await c.peer.recv() == b""


@every_kind
async def test_close_after_everything_is_a_no_op(transport_pair):
    c = await transport_pair()
    c.transport.abort()
    await c.protocol.wait_lost()
    assert c.transport.close() is None
    assert c.transport.is_closing()
    assert c.transport.get_write_buffer_size() == 0
    assert not c.transport.is_reading()
    await iterations()


@every_kind_and_tls
async def test_close_sends_the_write_buffer(transport_pair):
    c = await transport_pair()
    c.shrink()
    data = pattern(4 * MIB)
    c.transport.write(data)
    c.transport.close()
    assert c.transport.is_closing()
    await iterations(5)
    assert not c.protocol.lost
    assert await c.peer.recv_all() == data
    assert await c.protocol.wait_lost() is None


@every_kind
async def test_connection_lost_in_the_iteration_of_the_last_byte(
    transport_pair,
):
    """Before what resume_writing scheduled, which asyncio's users can see."""
    seen = []

    def resumed(protocol):
        loop = asyncio.get_running_loop()
        loop.call_soon(lambda: seen.append(list(protocol.names)))

    c = await transport_pair(Recorder(resume=resumed))
    c.shrink()
    c.transport.set_write_buffer_limits(high=0)
    c.fill()
    c.transport.close()
    while await c.peer.recv():
        pass
    assert await c.protocol.wait_lost() is None
    assert seen == [["made", "pause", "resume", "lost"]]


@every_kind
async def test_the_descriptor_is_open_until_connection_lost(transport_pair):
    seen = []

    def look(protocol, exc):
        sock = protocol.transport.get_extra_info("socket")
        seen.append(sock.fileno())

    c = await transport_pair(Recorder(lost=look))
    sock = c.transport.get_extra_info("socket")
    fd = sock.fileno()
    c.transport.close()
    assert sock.fileno() == fd
    await c.protocol.wait_lost()
    await iterations(1)
    assert seen == [fd]
    assert sock.fileno() == -1
