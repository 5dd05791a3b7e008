"""Flow control of writing: the water marks and the protocol's two calls.

pause_writing comes from inside the write that crosses the high mark,
resume_writing when the buffer has drained to the low one.
"""

from __future__ import annotations

import asyncio

import pytest
from net_helpers import (
    KIB,
    MIB,
    BufferedRecorder,
    Recorder,
    every_kind,
    every_tcp_kind,
    link,
    pattern,
    spin,
    turns,
)


@every_kind
def test_default_limits(run, kind):
    async def main():
        async with link(kind) as c:
            limits = c.transport.get_write_buffer_limits()
            assert limits == (16 * KIB, 64 * KIB)
            assert type(limits) is tuple
            assert c.transport.get_write_buffer_size() == 0

    run(main())


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
def test_set_limits(run, kind, arguments, limits):
    async def main():
        async with link(kind) as c:
            assert c.transport.set_write_buffer_limits(**arguments) is None
            assert c.transport.get_write_buffer_limits() == limits

    run(main())


@pytest.mark.parametrize("huge", [2**62, 2**63 - 1, 2**63, 2**80])
@every_kind
def test_huge_limits(run, kind, huge):
    async def main():
        async with link(kind) as c:
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

    run(main())


@every_kind
def test_limits_by_position(run, kind):
    async def main():
        async with link(kind) as c:
            c.transport.set_write_buffer_limits(900, 100)
            assert c.transport.get_write_buffer_limits() == (100, 900)

    run(main())


@pytest.mark.parametrize(
    "arguments",
    [
        {"high": 10, "low": 11},
        {"high": -1},
        {"low": -1},
        {"high": 5, "low": -1},
    ],
    ids=str,
)
@every_kind
def test_limits_that_make_no_sense(run, kind, arguments):
    async def main():
        async with link(kind) as c:
            with pytest.raises(ValueError, match="must be >= low"):
                c.transport.set_write_buffer_limits(**arguments)
            limits = c.transport.get_write_buffer_limits()
            assert limits == (16 * KIB, 64 * KIB)

    run(main())


@pytest.mark.parametrize(
    ("arguments", "text"),
    [
        ({"high": -1}, r"high \(-1\) must be >= low \(-1\) must be >= 0"),
        ({"high": -5}, r"high \(-5\) must be >= low \(-2\) must be >= 0"),
        ({"low": -1}, r"high \(-4\) must be >= low \(-1\) must be >= 0"),
    ],
    ids=str,
)
@every_kind
def test_the_text_about_limits(run, kind, arguments, text):
    async def main():
        async with link(kind) as c:
            with pytest.raises(ValueError, match=text):
                c.transport.set_write_buffer_limits(**arguments)

    run(main())


@every_kind
def test_limits_may_be_fractions(run, kind):
    async def main():
        async with link(kind) as c:
            transport = c.transport
            transport.set_write_buffer_limits(high=2e6)
            assert transport.get_write_buffer_limits() == (500000, 2000000)
            transport.set_write_buffer_limits(high=float("inf"), low=1.5)
            assert transport.get_write_buffer_limits()[1] > 1 << 60
            with pytest.raises(ValueError, match="must be >= low"):
                transport.set_write_buffer_limits(high=-0.5)

    run(main())


@pytest.mark.parametrize("bad", ["text", [1]], ids=str)
@every_kind
def test_limits_of_a_wrong_type(run, kind, bad):
    async def main():
        async with link(kind) as c:
            with pytest.raises(TypeError):
                c.transport.set_write_buffer_limits(high=bad)

    run(main())


@pytest.mark.parametrize("make", [Recorder, BufferedRecorder])
@every_kind
def test_pause_inside_write_and_resume_when_drained(run, kind, make):
    async def main():
        async with link(kind, make()) as c:
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

    run(main())


@every_kind
def test_exactly_the_high_mark_does_not_pause(run, kind):
    async def main():
        async with link(kind) as c:
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

    run(main())


@every_kind
def test_zero_high_mark_pauses_with_the_first_byte_kept(run, kind):
    async def main():
        async with link(kind) as c:
            c.shrink()
            c.transport.set_write_buffer_limits(high=0)
            c.transport.write(b"small")
            assert c.protocol.count("pause") == 0
            total = c.fill()
            assert c.protocol.count("pause") == 1
            await c.peer.recv_exactly(total + 5)
            await c.protocol.wait_for("resume")
            assert c.transport.get_write_buffer_size() == 0

    run(main())


@every_kind
def test_zero_high_mark_with_small_writes_that_fit(run, kind):
    """What the kernel takes, or will with the callback, is not buffered."""

    async def main():
        async with link(kind) as c:
            c.transport.set_write_buffer_limits(high=0)
            for _ in range(10):
                for i in range(5):
                    c.transport.write(b"part %d" % i)
                    assert c.transport.get_write_buffer_size() == 0
                await c.peer.recv_exactly(30)
            assert c.protocol.names == ["made"]

    run(main())


@every_kind
def test_limits_lowered_under_what_is_buffered(run, kind):
    async def main():
        async with link(kind) as c:
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

    run(main())


@every_kind
def test_pause_and_resume_again_and_again(run, kind):
    async def main():
        async with link(kind) as c:
            c.shrink()
            data = pattern(MIB)
            for i in range(1, 6):
                c.transport.write(data)
                assert c.protocol.count("pause") == i
                assert await c.peer.recv_exactly(MIB) == data
                await c.protocol.wait_for("resume", i)

    run(main())


@every_kind
def test_writing_inside_resume_writing(run, kind):
    left = [pattern(MIB, i) for i in range(4)]
    expected = b"".join(left)

    def more(protocol):
        while left and protocol.names[-1] != "pause":
            protocol.transport.write(left.pop(0))

    async def main():
        async with link(kind, Recorder(resume=more)) as c:
            c.shrink()
            more(c.protocol)
            assert await c.peer.recv_exactly(len(expected)) == expected
            await spin(lambda: c.protocol.names[-1] == "resume")
            assert c.protocol.count("pause") == c.protocol.count("resume")
            assert c.protocol.count("pause") == 4

    run(main())


@every_kind
def test_closing_inside_resume_writing(run, kind, loop_kind):
    if loop_kind == "asyncio":
        pytest.skip("asyncio calls connection_lost twice (gh-156512)")

    async def main():
        protocol = Recorder(resume=lambda p: p.transport.close())
        async with link(kind, protocol) as c:
            c.shrink()
            data = pattern(MIB)
            c.transport.write(data)
            assert await c.peer.recv_all() == data
            assert await c.protocol.wait_lost() is None
            assert c.protocol.names == ["made", "pause", "resume", "lost"]

    run(main())


@every_kind
def test_aborting_inside_pause_writing(run, kind):
    async def main():
        protocol = Recorder(pause=lambda p: p.transport.abort())
        async with link(kind, protocol) as c:
            c.shrink()
            c.transport.write(pattern(MIB))
            assert c.transport.is_closing()
            assert await c.protocol.wait_lost() is None
            assert c.protocol.names == ["made", "pause", "lost"]

    run(main())


@every_kind
def test_closing_inside_pause_writing_sends_the_rest(run, kind):
    async def main():
        protocol = Recorder(pause=lambda p: p.transport.close())
        async with link(kind, protocol) as c:
            c.shrink()
            data = pattern(MIB)
            c.transport.write(data)
            assert await c.peer.recv_all() == data
            assert await c.protocol.wait_lost() is None

    run(main())


@pytest.mark.parametrize("name", ["pause", "resume"])
@every_kind
def test_a_raising_flow_call_is_reported(run, kind, reports, name):
    """The transport goes on; nothing reaches the caller of write."""

    def bad(protocol):
        raise ZeroDivisionError(name)

    async def main():
        async with link(kind, Recorder(**{name: bad})) as c:
            c.shrink()
            data = pattern(MIB)
            c.transport.write(data)
            assert await c.peer.recv_exactly(MIB) == data
            await c.protocol.wait_for("resume")
            await turns()
            assert not c.transport.is_closing()
            (report,) = reports
            assert report["message"] == f"protocol.{name}_writing() failed"
            assert isinstance(report["exception"], ZeroDivisionError)
            assert report["transport"] is c.transport
            assert report["protocol"] is c.protocol

    run(main())


@every_kind
def test_no_resume_after_abort(run, kind):
    async def main():
        async with link(kind) as c:
            c.shrink()
            c.transport.write(pattern(MIB))
            c.transport.abort()
            await c.protocol.wait_lost()
            assert c.protocol.names == ["made", "pause", "lost"]

    run(main())


@every_kind
def test_writelines_pauses_sooner_or_later(run, kind, loop_kind):
    """asyncio's writelines from 3.12 never looks at the high mark."""

    async def main():
        async with link(kind) as c:
            c.shrink()
            c.transport.writelines([pattern(MIB), b"end"])
            if loop_kind == "fastloop":
                assert c.protocol.count("pause") == 1
            c.transport.write(b"!")
            assert c.protocol.count("pause") == 1
            await c.peer.recv_exactly(MIB + 4)
            await c.protocol.wait_for("resume")

    run(main())


@every_kind
def test_the_new_protocol_gets_the_resume(run, kind):
    """What was paused through the old protocol resumes through the new."""

    async def main():
        async with link(kind) as c:
            c.shrink()
            c.transport.write(pattern(MIB))
            assert c.protocol.count("pause") == 1
            second = Recorder()
            c.transport.set_protocol(second)
            await c.peer.recv_exactly(MIB)
            await second.wait_for("resume")
            assert c.protocol.count("resume") == 0
            c.transport.set_protocol(c.protocol)

    run(main())


@every_kind
def test_a_writer_waiting_for_room_is_bounded(run, kind):
    """Obeying pause_writing keeps the buffer near the high mark."""
    may_write = asyncio.Event()
    may_write.set()

    async def main():
        protocol = Recorder(
            pause=lambda p: may_write.clear(),
            resume=lambda p: may_write.set(),
        )
        async with link(kind, protocol) as c:
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

    run(main())


@every_tcp_kind
def test_eof_written_in_resume_writing_is_sent_once(run, kind, loop_kind):
    """The kernel refuses the second if the peer has ended too."""
    if loop_kind == "asyncio":
        pytest.skip("asyncio shuts down again and reports what that raises")

    async def main():
        protocol = Recorder(
            eof=lambda p: True, resume=lambda p: p.transport.write_eof()
        )
        async with link(kind, protocol) as c:
            c.shrink()
            c.transport.set_write_buffer_limits(high=0)
            c.peer.send_eof()
            await protocol.wait_for("eof")
            c.fill()
            while await c.peer.recv():
                pass
            await turns(5)
            assert not protocol.lost
            c.transport.close()
            assert await protocol.wait_lost() is None

    run(main())
