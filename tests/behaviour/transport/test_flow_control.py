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
    BufferedRecorder,
    Recorder,
    every_kind,
    every_tcp_kind,
    iterations,
    pattern,
    spin,
)


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
    ],
    ids=str,
)
@every_kind
async def test_set_limits(transport_pair, arguments, limits):
    c = await transport_pair()
    assert c.transport.set_write_buffer_limits(**arguments) is None
    assert c.transport.get_write_buffer_limits() == limits
    c.transport.set_write_buffer_limits(900, 100)
    assert c.transport.get_write_buffer_limits() == (100, 900)


@pytest.mark.parametrize("huge", [2**62, 2**63 - 1, 2**63, 2**80])
@every_kind
async def test_huge_limits(transport_pair, huge):
    c = await transport_pair()
    c.transport.set_write_buffer_limits(low=huge)
    low, high = c.transport.get_write_buffer_limits()
    assert 2**62 <= low <= high
    c.transport.set_write_buffer_limits(high=huge)
    low, high = c.transport.get_write_buffer_limits()
    assert 2**60 - 1 <= low < high
    c.transport.write(b"data")
    assert await c.peer.recv_exactly(4) == b"data"
    with pytest.raises(ValueError, match="must be >= low"):
        c.transport.set_write_buffer_limits(low=-huge)


@pytest.mark.parametrize(
    ("arguments", "high", "low"),
    [
        ({"high": 10, "low": 11}, 10, 11),
        ({"high": -1}, -1, -1),
        ({"high": -5}, -5, -2),
        ({"low": -1}, -4, -1),
        ({"high": 5, "low": -1}, 5, -1),
    ],
    ids=str,
)
@every_kind
async def test_limits_that_make_no_sense(transport_pair, arguments, high, low):
    c = await transport_pair()
    text = rf"high \({high}\) must be >= low \({low}\) must be >= 0"
    with pytest.raises(ValueError, match=text):
        c.transport.set_write_buffer_limits(**arguments)
    limits = c.transport.get_write_buffer_limits()
    assert limits == (16 * KIB, 64 * KIB)


@every_kind
async def test_limits_may_be_fractions(transport_pair):
    c = await transport_pair()
    transport = c.transport
    transport.set_write_buffer_limits(high=2e6)
    assert transport.get_write_buffer_limits() == (500000, 2000000)
    transport.set_write_buffer_limits(high=float("inf"), low=1.5)
    assert transport.get_write_buffer_limits()[1] > 1 << 60
    with pytest.raises(ValueError, match="must be >= low"):
        transport.set_write_buffer_limits(high=-0.5)


@pytest.mark.parametrize("bad", ["text", [1]], ids=str)
@every_kind
async def test_limits_of_a_wrong_type(transport_pair, bad):
    c = await transport_pair()
    with pytest.raises(TypeError):
        c.transport.set_write_buffer_limits(high=bad)


@pytest.mark.parametrize("make", [Recorder, BufferedRecorder])
@every_kind
async def test_pause_inside_write_and_resume_when_drained(
    transport_pair, make
):
    c = await transport_pair(make())
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
    assert c.protocol.count("pause") == 0
    total = c.fill()
    assert c.protocol.count("pause") == 1
    await c.peer.recv_exactly(total + 5)
    await c.protocol.wait_for("resume")
    assert c.transport.get_write_buffer_size() == 0


@every_kind
async def test_zero_high_mark_with_small_writes_that_fit(transport_pair):
    """What the kernel takes, or will with the callback, is not buffered."""
    c = await transport_pair()
    c.transport.set_write_buffer_limits(high=0)
    for _ in range(10):
        for i in range(5):
            c.transport.write(b"part %d" % i)
            assert c.transport.get_write_buffer_size() == 0
        await c.peer.recv_exactly(30)
    assert c.protocol.names == ["made"]


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
async def test_writing_inside_resume_writing(transport_pair):
    left = [pattern(MIB, i) for i in range(4)]
    expected = b"".join(left)

    def more(protocol):
        while left and protocol.names[-1] != "pause":
            protocol.transport.write(left.pop(0))

    c = await transport_pair(Recorder(resume=more))
    c.shrink()
    more(c.protocol)
    assert await c.peer.recv_exactly(len(expected)) == expected
    await spin(lambda: c.protocol.names[-1] == "resume")
    assert c.protocol.count("pause") == c.protocol.count("resume")
    assert c.protocol.count("pause") == 4


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
async def test_aborting_inside_pause_writing(transport_pair):
    protocol = Recorder(pause=lambda p: p.transport.abort())
    c = await transport_pair(protocol)
    c.shrink()
    c.transport.write(pattern(MIB))
    assert c.transport.is_closing()
    assert await c.protocol.wait_lost() is None
    assert c.protocol.names == ["made", "pause", "lost"]


@every_kind
async def test_closing_inside_pause_writing_sends_the_rest(transport_pair):
    protocol = Recorder(pause=lambda p: p.transport.close())
    c = await transport_pair(protocol)
    c.shrink()
    data = pattern(MIB)
    c.transport.write(data)
    assert await c.peer.recv_all() == data
    assert await c.protocol.wait_lost() is None


@pytest.mark.parametrize("name", ["pause", "resume"])
@every_kind
async def test_a_raising_flow_call_is_reported(transport_pair, reports, name):
    """The transport goes on; nothing reaches the caller of write."""

    def bad(protocol):
        raise ZeroDivisionError(name)

    c = await transport_pair(Recorder(**{name: bad}))
    c.shrink()
    data = pattern(MIB)
    c.transport.write(data)
    assert await c.peer.recv_exactly(MIB) == data
    await c.protocol.wait_for("resume")
    await iterations()
    assert not c.transport.is_closing()
    (report,) = reports
    assert report["message"] == f"protocol.{name}_writing() failed"
    assert isinstance(report["exception"], ZeroDivisionError)
    assert report["transport"] is c.transport
    assert report["protocol"] is c.protocol


@every_kind
async def test_no_resume_after_abort(transport_pair):
    c = await transport_pair()
    c.shrink()
    c.transport.write(pattern(MIB))
    c.transport.abort()
    await c.protocol.wait_lost()
    assert c.protocol.names == ["made", "pause", "lost"]


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


@every_kind
async def test_the_new_protocol_gets_the_resume(transport_pair):
    """What was paused through the old protocol resumes through the new."""
    c = await transport_pair()
    c.shrink()
    c.transport.write(pattern(MIB))
    assert c.protocol.count("pause") == 1
    second = Recorder()
    c.transport.set_protocol(second)
    await c.peer.recv_exactly(MIB)
    await second.wait_for("resume")
    assert c.protocol.count("resume") == 0
    c.transport.set_protocol(c.protocol)


@every_kind
async def test_a_writer_waiting_for_room_is_bounded(transport_pair):
    """Obeying pause_writing keeps the buffer near the high mark."""
    may_write = asyncio.Event()
    may_write.set()

    protocol = Recorder(
        pause=lambda p: may_write.clear(),
        resume=lambda p: may_write.set(),
    )
    c = await transport_pair(protocol)
    c.shrink()

    async def writer():
        for i in range(400):
            await may_write.wait()
            c.transport.write(pattern(10000, i))
            size = c.transport.get_write_buffer_size()
            assert size <= 64 * KIB + 10000
        c.transport.write_eof()

    task = asyncio.create_task(writer())
    data = await c.peer.recv_all()
    await task
    assert data == b"".join(pattern(10000, i) for i in range(400))
    assert protocol.count("pause") > 0


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
