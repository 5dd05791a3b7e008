"""Flow control of writing: the water marks and the protocol's two calls.

pause_writing comes from inside the write that crosses the high mark,
resume_writing when the buffer has drained to the low one.
"""

from __future__ import annotations

import asyncio
import sys

import pytest
from net_helpers import (
    KIB,
    MIB,
    Recorder,
    every_kind,
    every_tcp_kind,
    iterations,
    pattern,
)

#: The limits are the same code on each.
one_kind = pytest.mark.parametrize("kind", ["unix"])


@pytest.mark.parametrize(
    "arguments, limits",
    [
        ({}, (16 * KIB, 64 * KIB)),
        ({"high": 1000}, (250, 1000)),
        ({"low": 1000}, (1000, 4000)),
        ({"high": 0}, (0, 0)),
        ({"low": 0}, (0, 0)),
        ({"high": 500, "low": 500}, (500, 500)),
        ({"high": 3}, (0, 3)),
        ({"high": None, "low": None}, (16 * KIB, 64 * KIB)),
        ({"high": 1 << 40, "low": 1 << 39}, (1 << 39, 1 << 40)),
        ({"high": 2e6}, (500_000, 2_000_000)),
    ],
    ids=str,
)
@one_kind
async def test_set_limits(transport_pair, arguments, limits):
    c = await transport_pair()
    assert c.transport.set_write_buffer_limits(**arguments) is None
    assert c.transport.get_write_buffer_limits() == limits
    c.transport.set_write_buffer_limits(900, 100)
    assert c.transport.get_write_buffer_limits() == (100, 900)


NO_SENSE = r"high \({}\) must be >= low \({}\) must be >= 0"


@pytest.mark.parametrize(
    ("arguments", "error", "text"),
    [
        ({"high": 10, "low": 11}, ValueError, NO_SENSE.format(10, 11)),
        ({"high": -1}, ValueError, NO_SENSE.format(-1, -1)),
        ({"high": -5}, ValueError, NO_SENSE.format(-5, -2)),
        ({"low": -1}, ValueError, NO_SENSE.format(-4, -1)),
        ({"high": 5, "low": -1}, ValueError, NO_SENSE.format(5, -1)),
        ({"high": -0.5}, ValueError, "must be >= low"),
        ({"low": -(2**63)}, ValueError, "must be >= low"),
        ({"high": "text"}, TypeError, None),
        ({"high": [1]}, TypeError, None),
    ],
    ids=str,
)
@one_kind
async def test_refused_limits(transport_pair, arguments, error, text):
    c = await transport_pair()
    with pytest.raises(error, match=text):
        c.transport.set_write_buffer_limits(**arguments)
    assert c.transport.get_write_buffer_limits() == (16 * KIB, 64 * KIB)


@every_kind
async def test_pause_inside_write_and_resume_when_drained(transport_pair):
    c = await transport_pair()
    c.shrink()
    total = 0
    while c.protocol.count("pause") == 0:
        before = c.transport.get_write_buffer_size()
        assert before <= 64 * KIB
        c.transport.write(b"x" * 10000)
        total += 10000
    assert c.transport.get_write_buffer_size() > 64 * KIB
    c.transport.write(b"y" * 10000)
    assert c.protocol.count("pause") == 1
    await c.peer.recv_exactly(total + 10000)
    await c.protocol.wait_for("resume")
    assert c.transport.get_write_buffer_size() <= 16 * KIB
    assert c.protocol.names == ["made", "pause", "resume"]


@every_kind
async def test_exactly_the_high_mark_does_not_pause(transport_pair):
    c = await transport_pair()
    c.shrink()
    high = 300_000
    c.transport.set_write_buffer_limits(high=high, low=high)
    total = c.fill(b"x" * 30000)
    room = high - c.transport.get_write_buffer_size()
    c.transport.write(b"y" * room)
    assert c.transport.get_write_buffer_size() == high
    assert c.protocol.count("pause") == 0
    c.transport.write(b"z")
    assert c.protocol.count("pause") == 1
    await c.peer.recv_exactly(total + room + 1)
    await c.protocol.wait_for("resume")


@every_kind
async def test_zero_high_mark_pauses_with_the_first_buffered_byte(
    transport_pair,
):
    c = await transport_pair()
    c.shrink()
    c.transport.set_write_buffer_limits(high=0)
    c.transport.write(b"small")
    # The kernel takes it, or will with the callback.
    assert c.transport.get_write_buffer_size() == 0
    assert c.protocol.count("pause") == 0
    total = c.fill()
    assert c.protocol.count("pause") == 1
    await c.peer.recv_exactly(total + 5)
    await c.protocol.wait_for("resume")
    assert c.transport.get_write_buffer_size() == 0


@every_kind
async def test_limits_lowered_below_the_buffer_size(transport_pair):
    c = await transport_pair()
    c.shrink()
    c.transport.set_write_buffer_limits(high=1 << 30)
    total = c.fill()
    c.transport.write(b"x" * MIB)
    assert c.protocol.count("pause") == 0
    c.transport.set_write_buffer_limits(high=10)
    assert c.protocol.count("pause") == 1
    assert c.protocol.count("resume") == 0
    await c.peer.recv_exactly(total + MIB)
    await c.protocol.wait_for("resume")


@every_kind
async def test_closing_inside_resume_writing(transport_pair, loop_kind):
    if loop_kind == "asyncio":
        pytest.skip("asyncio calls connection_lost twice (gh-156512)")

    protocol = Recorder(resume=lambda p: p.transport.close())
    c = await transport_pair(protocol)
    c.shrink()
    data = pattern(MIB)
    c.transport.write(data)
    assert await c.peer.recv_all() == data
    assert await c.protocol.wait_lost() is None
    assert c.protocol.names == ["made", "pause", "resume", "lost"]


@every_kind
async def test_writelines_pauses_sooner_or_later(transport_pair, loop_kind):
    """asyncio's writelines from 3.12 never looks at the high mark."""
    c = await transport_pair()
    c.shrink()
    c.transport.writelines([pattern(MIB), b"end"])
    if loop_kind == "fastloop":
        assert c.protocol.count("pause") == 1
    c.transport.write(b"!")
    assert c.protocol.count("pause") == 1
    await c.peer.recv_exactly(MIB + 4)
    await c.protocol.wait_for("resume")


@every_tcp_kind
async def test_eof_written_in_resume_writing_is_sent_once(
    transport_pair, loop_kind
):
    """The kernel refuses the second if the peer has ended too."""
    if loop_kind == "asyncio":
        pytest.skip("asyncio shuts down again and reports what that raises")

    protocol = Recorder(
        eof=lambda p: True, resume=lambda p: p.transport.write_eof()
    )
    c = await transport_pair(protocol)
    c.shrink()
    c.transport.set_write_buffer_limits(high=0)
    c.peer.send_eof()
    await protocol.wait_for("eof")
    c.fill()
    while await c.peer.recv():
        pass
    await iterations(5)
    assert not protocol.lost
    c.transport.close()
    assert await protocol.wait_lost() is None


@every_kind
async def test_unread_bytes_do_not_wake_waiting_writers(transport_pair):
    """Reading is paused and the peer takes nothing: the loop sleeps."""
    c = await transport_pair()
    loop = asyncio.get_running_loop()
    c.transport.pause_reading()
    await asyncio.sleep(0)
    c.fill()
    await c.peer.send(b"unread")
    if hasattr(loop, "enable_metrics"):
        loop.enable_metrics()
    await asyncio.sleep(0.1)
    if hasattr(loop, "metrics"):
        assert loop.metrics().polls < 20
    assert c.transport.get_write_buffer_size() > 0
    assert c.protocol.data == b""
    c.transport.abort()
    await c.protocol.wait_lost()


@every_kind
async def test_a_lost_connection_frees_its_write_buffer(
    transport_pair,
):
    """Also while the transport itself is referenced."""
    c = await transport_pair()
    c.fill()
    data = pattern(MIB)
    before = sys.getrefcount(data)
    c.transport.write(data)
    c.transport.abort()
    await c.protocol.wait_lost()
    await iterations(2)
    assert sys.getrefcount(data) == before
