"""What is written to a TLS transport, and when the protocol is paused."""

from __future__ import annotations

import asyncio
import contextlib
import socket
import ssl
from asyncio import sslproto

import pytest
from libssl_calls import LibsslCalls
from net_helpers import (
    KIB,
    MIB,
    Recorder,
    client_context,
    iterations,
    pattern,
)
from tls_ends import contexts, every_side

#: Asyncio's marks for what TLS has not yet given to the wire.
LOW, HIGH = 128 * KIB, 512 * KIB


class Interrupted(BaseException):
    """What a signal handler raises."""


@pytest.mark.parametrize(
    ("make", "kind", "call"),
    [
        (bytes, ssl.SSLWantReadError, "write"),
        (bytearray, ssl.SSLWantReadError, "write"),
        (memoryview, ssl.SSLWantReadError, "write"),
        (bytes, Interrupted, "write"),
        (bytes, KeyboardInterrupt, "writelines"),
        (bytes, asyncio.CancelledError, "write"),
    ],
)
async def test_writes_that_the_engine_refuses_are_finished(
    tls_pair, make, kind, call
):
    """It may take a part, and the rest only after the peer has sent.  What
    interrupts a write is raised, and the next write finishes it.
    """
    answers = []

    class Refuses(ssl.SSLObject):
        def write(self, data):
            answer = answers.pop(0) if answers else MIB
            if answer is kind:
                raise kind
            return super().write(bytes(data)[:answer])

    context = client_context()
    context.sslobject_class = Refuses
    c = await tls_pair(near=context)
    lines = [pattern(40 * KIB), pattern(40 * KIB, seed=2)]
    data = b"".join(lines)
    waits = kind is ssl.SSLWantReadError
    answers += [40 * KIB, KIB // 2, *[kind] * (9 if waits else 1)]
    with contextlib.nullcontext() if waits else pytest.raises(kind):
        if call == "write":
            c.transport.write(make(data))
        else:
            c.transport.writelines(lines)
    assert not c.transport.is_closing()
    if waits:
        assert c.transport.get_write_buffer_size()
        answers.clear()
        await c.peer.write(b"now")
        await c.protocol.wait_data(3)
        assert c.transport.get_write_buffer_size() == 0
    c.transport.write(b"end")
    assert await c.peer.read_exactly(len(data) + 3) == data + b"end"
    await c.peer.write(b"answer")
    await c.protocol.wait_for("data", 2 if waits else 1)
    assert c.protocol.data == (b"nowanswer" if waits else b"answer")
    assert c.protocol.names == ["made", "data"]


@pytest.mark.parametrize("side", ["client", "server"])
async def test_writes_while_the_peer_renegotiates(settled_pair, side):
    """TLS 1.2, begun by the peer: they wait where they must, and none is
    lost or doubled.
    """
    near, far = contexts(side, "1.2")
    if side == "server":
        # SSL_OP_ALLOW_CLIENT_RENEGOTIATION, which ssl does not name.
        near.options |= 1 << 8
    c = await settled_pair(side=side, near=near, far=far)
    calls = LibsslCalls(c.peer)
    expected = b""
    for number in range(1, 4):
        await c.peer.send(calls.seal_renegotiations(1))
        for piece in range(200):
            lines = b"<%d %d>\n" % (number, piece) * (1 + piece * 10)
            c.transport.write(lines)
            expected += lines
            if piece % 20 == 0:
                assert await c.peer.read_exactly(len(expected)) == expected
                expected = b""
        assert await c.peer.read_exactly(len(expected)) == expected
        expected = b""
        await c.peer.drive(c.peer.tls.write, b"heard")
        assert await c.protocol.wait_data(5 * number) == b"heard" * number
        assert calls.count_renegotiations() == number


@pytest.mark.parametrize("wrong", ["text", None, [b"x"]])
async def test_other_types_than_bytes_are_refused(tls_pair, wrong):
    c = await tls_pair()
    with pytest.raises(TypeError) as caught:
        c.transport.write(wrong)
    kind = type(wrong).__name__
    assert str(caught.value) == (
        f"data: expecting a bytes-like instance, got {kind}"
    )
    c.transport.write(b"fine")
    assert await c.peer.read_exactly(4) == b"fine"


@pytest.mark.native_tls
async def test_writelines_refuses_an_item_and_writes_none(tls_pair):
    """asyncio ends the connection."""
    c = await tls_pair()
    with pytest.raises(TypeError):
        c.transport.writelines([b"lost?", "text"])
    c.transport.writelines([b"fi", b"", bytearray(b"ne")])
    assert await c.peer.read_exactly(4) == b"fine"


@every_side
async def test_a_short_write_is_one_segment_at_once(tls_pair, side):
    """The record is on the wire in the iteration of the write."""
    c = await tls_pair(side=side)
    await c.settle()
    c.transport.write(b"now")
    wire = await c.peer.recv()
    assert len(wire) == 5 + int.from_bytes(wire[3:5], "big")
    c.peer.incoming.write(wire)
    assert c.peer.tls.read() == b"now"


@pytest.mark.parametrize(
    ("name", "marks"),
    [("write", (LOW, HIGH)), ("read", (64 * KIB, 256 * KIB))],
)
async def test_limits_are_asyncios(tls_pair, name, marks):
    """TLS transports alone have those of reading."""
    c = await tls_pair()
    limits = getattr(c.transport, f"get_{name}_buffer_limits")
    set_limits = getattr(c.transport, f"set_{name}_buffer_limits")
    assert limits() == marks
    set_limits(high=1000)
    assert limits() == (250, 1000)
    set_limits(low=100)
    assert limits() == (100, 400)
    set_limits(high=1000, low=1000)
    assert limits() == (1000, 1000)
    for high, low in [(1, 2), (-1, None), (10, -1)]:
        with pytest.raises(ValueError, match="must be >= low"):
            set_limits(high=high, low=low)
    assert limits() == (1000, 1000)
    set_limits()
    assert limits() == marks
    assert c.transport.get_read_buffer_size() == 0


@every_side
async def test_pause_and_resume(tls_pair, side):
    """One call each: at the high mark inside write(), at the low later.

    What waits for a peer that does not read is bounded by the marks.
    """
    sizes = {}

    def note(name):
        def hook(protocol):
            sizes[name] = protocol.transport.get_write_buffer_size()

        return hook

    c = await tls_pair(
        Recorder(pause=note("pause"), resume=note("resume")), side=side
    )
    await c.settle()
    c.clear()
    c.socket.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 128 * KIB)
    c.peer.sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 64 * KIB)
    total = c.fill()
    await iterations(20)
    assert c.protocol.names == ["made", "pause"]
    assert sizes["pause"] >= HIGH
    # The mark, the write that crossed it, and what makes records of it.
    assert c.transport.get_write_buffer_size() < HIGH + 3 * 64 * KIB
    below = c.transport._ssl_protocol._transport
    assert below.get_write_buffer_size() < 3 * 64 * KIB
    c.transport.write(b"x")
    assert c.protocol.names == ["made", "pause"]
    await c.peer.read_exactly(total + 1)
    await c.protocol.wait_for("resume")
    assert sizes["resume"] <= LOW
    assert c.transport.get_write_buffer_size() == 0
    await c.settle()
    assert c.protocol.names == ["made", "pause", "resume", "data"]


@pytest.mark.parametrize("ends", [False, True])
async def test_bulk_waits_as_it_was_written(tls_pair, ends):
    """asyncio passes all records to the transport below at once, so that they
    are no longer buffered here.  fastloop makes at most 256 KiB ahead of it.
    """
    c = await tls_pair(side="server")
    below = c.transport._ssl_protocol._transport
    c.transport.write(pattern(16 * MIB))
    assert c.transport.get_write_buffer_size() == 0
    if not isinstance(c.transport._ssl_protocol, sslproto.SSLProtocol):
        assert below.get_write_buffer_size() < 330 * KIB
    for _ in range(3):
        c.transport.write(pattern(HIGH // 2))
    assert c.protocol.count("pause") == 1
    if ends:
        c.transport.close()
    assert await c.peer.read_exactly(16 * MIB) == pattern(16 * MIB)
    for _ in range(3):
        assert await c.peer.read_exactly(HIGH // 2) == pattern(HIGH // 2)


@every_side
async def test_a_write_inside_resume_writing_follows_what_waits(
    tls_pair, side
):
    c = await tls_pair(
        Recorder(resume=lambda p: p.transport.write(b"more")), side=side
    )
    sent, data = 0, pattern(200 * KIB)
    while not c.protocol.count("pause"):
        c.transport.write(data)
        sent += 1
    for _ in range(4):
        c.transport.write(data)
    for _ in range(sent + 4):
        assert await c.peer.read_exactly(len(data)) == data
    assert await c.peer.read_exactly(4) == b"more"


@every_side
@pytest.mark.parametrize("end", ["close", "abort", "peer"])
async def test_writes_after_the_end_are_dropped(tls_pair, side, end, caplog):
    """Silently five times, of which a loss is one; then with a warning."""
    c = await tls_pair(side=side)
    await c.settle()
    if end == "peer":
        await c.peer.close_notify()
    else:
        getattr(c.transport, end)()
    if end != "close":
        await c.protocol.wait_lost()
    with caplog.at_level("WARNING", logger="asyncio"):
        for _ in range(5 if end == "close" else 4):
            c.transport.write(b"dropped")
        assert caplog.records == []
        c.transport.write(b"dropped")
        c.transport.writelines([b"dropped"])
    texts = [record.getMessage() for record in caplog.records]
    assert texts == ["SSL connection is closed"] * 2
    if end == "close":
        assert await c.peer.read() == b""
        await c.peer.close_notify()
        assert await c.protocol.wait_lost() is None
