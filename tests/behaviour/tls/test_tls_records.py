"""Records that arrive cut, joined, spoiled or out of place."""

from __future__ import annotations

import contextlib
import socket
import ssl

import pytest
from net_helpers import KIB, MIB, Recorder, iterations, pattern
from tls_ends import (
    APPLICATION_DATA,
    RECORD,
    contexts,
    every_side,
    every_version,
)
from tls_reasons import BAD_RECORD


@every_side
@every_version
async def test_records_of_one_segment_are_one_call(
    settled_pair, side, version
):
    c = await settled_pair(side=side, version=version)
    pieces = [pattern(size, size) for size in (1, 2, 100, 5000, 1, 9)]
    await c.peer.send(b"".join(map(c.peer.seal, pieces)))
    whole = b"".join(pieces)
    assert await c.protocol.wait_data(len(whole)) == whole
    assert c.protocol.count("data") == 2
    assert [v for name, v in c.protocol.events if name == "data"] == [
        len(whole)
    ]


@every_side
async def test_a_record_cut_at_each_place(settled_pair, side):
    """Two records, cut in two: the cut may be in a header too."""
    c = await settled_pair(side=side)
    expected = b""
    for cut in range(1, 2 * (5 + 1 + 17)):
        wire = c.peer.seal(b"a") + c.peer.seal(b"b")
        await c.peer.send(wire[:cut])
        await iterations(2)
        await c.peer.send(wire[cut:])
        expected += b"ab"
        assert await c.protocol.wait_data(len(expected)) == expected


@every_side
async def test_records_of_all_sizes(tls_pair, side):
    """Around the limit of a record and around powers of two."""
    sizes = [1, 2, 15, 16, 17, 255, 256, 257, 4095, 4096, 4097]
    sizes += [RECORD - 1, RECORD, RECORD + 1, 2 * RECORD, 2 * RECORD + 1]
    c = await tls_pair(side=side)
    data = b"".join(pattern(size, size) for size in sizes)
    for size in sizes:
        await c.peer.write(pattern(size, size))
    assert await c.protocol.wait_data(len(data)) == data
    for size in sizes:
        c.transport.write(pattern(size, size))
    assert await c.peer.read_exactly(len(data)) == data


@every_side
@every_version
async def test_writes_are_in_records_of_the_largest_size(
    tls_pair, side, version
):
    c = await tls_pair(side=side, version=version)
    await c.settle()
    c.transport.write(bytes(100_000))
    wire = bytearray()
    for size in [RECORD] * 6 + [100_000 - 6 * RECORD]:
        while len(wire) < 5:
            wire += await c.peer.recv()
        length = 5 + int.from_bytes(wire[3:5], "big")
        while len(wire) < length:
            wire += await c.peer.recv()
        assert wire[0] == APPLICATION_DATA
        assert size < length <= size + 5 + 256
        c.peer.incoming.write(wire[:length])
        del wire[:length]
    assert not wire
    assert await c.peer.read_exactly(100_000) == bytes(100_000)


def tiny_records(peer, count):
    """Records of one byte each, and the bytes."""
    data = pattern(count)
    return b"".join(peer.seal(data[at : at + 1]) for at in range(count)), data


@every_side
@every_version
async def test_many_tiny_records(settled_pair, side, version):
    """They are joined: a byte does not cost a call of the protocol."""
    c = await settled_pair(side=side, version=version)
    before = c.protocol.count("data")
    wire, data = tiny_records(c.peer, 20_000)
    await c.peer.send(wire)
    assert await c.protocol.wait_data(len(data)) == data
    assert c.protocol.count("data") - before < len(data) / 10


@every_side
async def test_many_tiny_records_to_a_paused_transport(settled_pair, side):
    c = await settled_pair(side=side)
    c.transport.pause_reading()
    wire, data = tiny_records(c.peer, 60_000)
    below = c.transport._ssl_protocol._transport
    at = 0
    while below.is_reading():
        with contextlib.suppress(BlockingIOError):
            at += c.peer.sock.send(wire[at : at + 64 * KIB])
        await iterations(1)
        assert c.transport.get_read_buffer_size() < MIB
    c.transport.resume_reading()
    await c.peer.send(wire[at:])
    assert await c.protocol.wait_data(len(data)) == data


def spoil_text(wire):
    """One bit of the cipher text is another."""
    return wire[:-3] + bytes([wire[-3] ^ 1]) + wire[-2:]


def spoil_length(wire):
    """More than any record may hold."""
    return wire[:3] + (RECORD + 2049).to_bytes(2, "big") + wire[5:]


def spoil_version(wire):
    return wire[:1] + b"\x09\x09" + wire[3:]


def spoil_kind(wire):
    return b"\x63" + wire[1:]


def plain_text(wire):
    return b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n"


def plain_alert(wire):
    """A fatal alert in plain text."""
    return b"\x15\x03\x03\x00\x02\x02\x28"


SPOILERS = [
    spoil_text,
    spoil_length,
    spoil_version,
    spoil_kind,
    plain_text,
    plain_alert,
]


@every_side
@pytest.mark.parametrize("spoil", SPOILERS, ids=lambda spoil: spoil.__name__)
async def test_a_spoiled_record_ends_the_connection(settled_pair, side, spoil):
    """With an SSLError for connection_lost, and no report: it is OSError."""
    c = await settled_pair(side=side)
    await c.peer.send(spoil(c.peer.seal(b"spoiled, and long enough")))
    exc = await c.protocol.wait_lost()
    assert type(exc) is ssl.SSLError
    assert exc.library == "SSL"
    # That is what OpenSSL 3.0.20 has for an alert; Python names no reason.
    assert exc.reason or "internal error" in str(exc)
    assert c.protocol.names == ["made", "lost"]
    assert c.protocol.data == b""
    assert c.transport.is_closing()
    await c.peer.expect_end()


@pytest.mark.native_tls
@every_side
@every_version
async def test_the_peer_of_a_spoiled_record_gets_an_alert(
    settled_pair, side, version
):
    """Also if the protocol answers the data before it, which TLS refuses."""

    class Answers(Recorder):
        def data_received(self, data):
            super().data_received(data)
            if data == b"good":
                self.transport.write(b"answer")

    c = await settled_pair(Answers(), side=side, version=version)
    good = c.peer.seal(b"good")
    await c.peer.send(good + spoil_text(c.peer.seal(b"spoiled")))
    with pytest.raises(ssl.SSLError, match="ALERT_BAD_RECORD_MAC"):
        await c.peer.read()
    exc = await c.protocol.wait_lost()
    assert exc.reason in BAD_RECORD


@every_side
@every_version
async def test_a_bad_record_is_the_reason_where_no_alert_can_leave(
    settled_pair, side, version
):
    c = await settled_pair(side=side, version=version)
    c.transport.get_extra_info("socket").shutdown(socket.SHUT_WR)
    await c.peer.send(spoil_text(c.peer.seal(b"spoiled")))
    exc = await c.protocol.wait_lost()
    assert exc.reason in BAD_RECORD


@every_side
@every_version
async def test_the_error_is_that_of_the_ssl_module(tls_pair, side, version):
    """The peer's SSLObject is given a spoiled record too: one error."""
    c = await tls_pair(side=side, version=version)
    await c.settle()
    c.transport.write(b"spoiled")
    c.peer.incoming.write(spoil_text(await c.peer.recv()))
    with pytest.raises(ssl.SSLError) as caught:
        c.peer.tls.read()
    # The alert of the peer is not sent.
    c.peer.outgoing.read()
    other = await tls_pair(side=side, version=version)
    await other.settle()
    await other.peer.send(spoil_text(other.peer.seal(b"spoiled")))
    exc = await other.protocol.wait_lost()
    for name in ("reason", "library", "errno"):
        assert getattr(exc, name) == getattr(caught.value, name)
    # What stands before the place in CPython's source.
    assert str(exc).split(" (")[0] == str(caught.value).split(" (")[0]


@every_side
async def test_a_spoiled_record_is_logged_in_debug_mode(
    tls_pair, debug, side, caplog
):
    c = await tls_pair(side=side)
    await c.settle()
    with caplog.at_level("DEBUG", logger="asyncio"):
        await c.peer.send(spoil_text(c.peer.seal(b"spoiled")))
        await c.protocol.wait_lost()
    (record,) = [r for r in caplog.records if "atal error" in r.getMessage()]
    assert record.levelname == "DEBUG"
    assert isinstance(record.exc_info[1], ssl.SSLError)


@every_side
async def test_other_connections_do_not_notice(tls_pair, side):
    """An error of OpenSSL belongs to one connection: its queue is cleared."""
    near, far = contexts(side)
    bad = await tls_pair(side=side, near=near, far=far)
    good = await tls_pair(side=side, near=near, far=far)
    await bad.settle()
    await good.settle()
    await bad.peer.send(spoil_text(bad.peer.seal(b"spoiled")))
    await good.peer.write(b"fine")
    assert isinstance(await bad.protocol.wait_lost(), ssl.SSLError)
    assert await good.protocol.wait_data(5) == b"!fine"
    good.transport.write(b"also fine")
    assert await good.peer.read_exactly(9) == b"also fine"


@every_side
async def test_an_error_that_a_program_left_is_not_ours(tls_pair, side):
    """A program's own failed handshake leaves nothing for our next read."""
    c = await tls_pair(side=side)
    await c.settle()

    def fail(protocol, data):
        incoming, outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        tls = context.wrap_bio(incoming, outgoing, server_hostname="x")
        incoming.write(b"not a handshake at all")
        with pytest.raises(ssl.SSLError):
            tls.do_handshake()

    c.protocol._hooks["data"] = fail
    for number in range(5):
        await c.peer.write(b"more")
        await c.protocol.wait_data(1 + 4 * (number + 1))
    c.transport.write(b"alive")
    assert await c.peer.read_exactly(5) == b"alive"
