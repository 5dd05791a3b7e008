"""Records that arrive cut, joined, spoiled or out of place."""

import contextlib
import ssl

import pytest
from libssl_calls import library
from net_helpers import (
    KIB,
    MIB,
    Recorder,
    client_context,
    iterations,
    pattern,
    spin,
)
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


@every_side
@every_version
@pytest.mark.parametrize("paused", [False, True])
async def test_many_tiny_records(settled_pair, side, version, paused):
    """They are joined: a byte does not cost a call of the protocol; a paused
    transport soon reads no more.
    """
    c = await settled_pair(side=side, version=version)
    data, at = pattern(40_000), 0
    wire = b"".join(c.peer.seal(data[n : n + 1]) for n in range(len(data)))
    before = c.protocol.count("data")
    if paused:
        c.transport.pause_reading()
        below = c.transport._ssl_protocol._transport
        while below.is_reading():
            with contextlib.suppress(BlockingIOError):
                at += c.peer.sock.send(wire[at : at + 64 * KIB])
            await iterations(1)
            assert c.transport.get_read_buffer_size() < MIB
        c.transport.resume_reading()
    await c.peer.send(wire[at:])
    assert await c.protocol.wait_data(len(data)) == data
    assert c.protocol.count("data") - before < len(data) / 10


@every_side
async def test_close_in_data_received_is_the_last_word(settled_pair, side):
    """However much has waited: asyncio joins it in one call."""
    last = []
    protocol = Recorder(data=lambda *_: last and c.transport.close())
    c = await settled_pair(protocol, side=side)
    c.transport.pause_reading()
    await c.peer.write(pattern(250_000))
    await spin(lambda: c.transport.get_read_buffer_size() > 250_000)
    before = protocol.count("data")
    last.append(True)
    c.transport.resume_reading()
    assert await c.peer.read() == b""
    await c.peer.close_notify()
    assert await protocol.wait_lost() is None
    assert protocol.count("data") == before + 1


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
async def test_a_spoiled_record_ends_the_connection(
    settled_pair, loop, side, spoil, caplog
):
    """With the error of the ssl module, which the peer's SSLObject has for
    such a record too.  It is OSError: only debug mode logs it.
    """
    loop.set_debug(spoil is spoil_text)
    c = await settled_pair(side=side)
    text = b"spoiled, and long enough"
    wire = spoil(c.peer.seal(text))
    c.transport.write(text)
    c.peer.incoming.write(spoil(await c.peer.recv()))
    with pytest.raises(ssl.SSLError) as caught:
        c.peer.tls.read()
    with caplog.at_level("DEBUG", logger="asyncio"):
        await c.peer.send(wire)
        exc = await c.protocol.wait_lost()
    assert type(exc) is ssl.SSLError
    for name in ("reason", "library", "errno"):
        assert getattr(exc, name) == getattr(caught.value, name)
    # What stands before the place in CPython's source.
    assert str(exc).split(" (")[0] == str(caught.value).split(" (")[0]
    logged = [r for r in caplog.records if "atal error" in r.getMessage()]
    assert [r.levelname for r in logged] == ["DEBUG"] * loop.get_debug()
    assert c.protocol.names == ["made", "lost"]
    assert c.protocol.data == b""
    assert c.transport.is_closing()
    await c.peer.expect_end()


@every_side
async def test_a_read_that_clears_errors_hides_no_reason(
    settled_pair, side, monkeypatch
):
    """CPython clears OpenSSL's queue of errors first, with gh-148594."""
    read = "def read(*args): clear(); return args[0]._sslobj.read(*args[1:])"
    clear = library().ERR_clear_error
    monkeypatch.setattr(ssl, "clear", clear, raising=False)
    exec(read, vars(ssl), found := {})
    c = await settled_pair(side=side)
    wire = spoil_text(c.peer.seal(b"spoiled"))
    monkeypatch.setattr(ssl.SSLObject, "read", found["read"])
    await c.peer.send(wire)
    exc = await c.protocol.wait_lost()
    assert type(exc) is ssl.SSLError
    assert exc.reason in BAD_RECORD and exc.reason in str(exc)


@pytest.mark.native_tls
@every_side
@every_version
@pytest.mark.parametrize("behind", [0, 64 * KIB])
async def test_the_peer_of_a_spoiled_record_gets_an_alert(
    settled_pair, side, version, behind
):
    """Also if the protocol answers the data before it, which TLS refuses, and
    if more is behind it than one read takes.
    """

    def answer(protocol, data):
        if data == b"good":
            protocol.transport.write(b"answer")

    c = await settled_pair(Recorder(data=answer), side=side, version=version)
    good = c.peer.seal(b"good")
    spoiled = spoil_text(c.peer.seal(b"spoiled"))
    await c.peer.send(good + spoiled + bytes(behind))
    with pytest.raises(ssl.SSLError, match="ALERT_BAD_RECORD_MAC"):
        await c.peer.read()
    assert await c.peer.recv() == b""
    exc = await c.protocol.wait_lost()
    assert exc.reason in BAD_RECORD


@every_side
async def test_errors_of_others_are_not_ours(tls_pair, side):
    """OpenSSL has one queue of errors: another connection's record and a
    program's own handshake leave nothing for our next read.
    """
    near, far = contexts(side)
    bad = await tls_pair(side=side, near=near, far=far)
    good = await tls_pair(side=side, near=near, far=far)
    await bad.settle()
    await good.settle()
    await bad.peer.send(spoil_text(bad.peer.seal(b"spoiled")))
    await good.peer.write(b"fine")
    assert isinstance(await bad.protocol.wait_lost(), ssl.SSLError)
    assert await good.protocol.wait_data(5) == b"!fine"

    def fail(protocol, data):
        incoming, outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
        tls = client_context().wrap_bio(
            incoming, outgoing, server_hostname="x"
        )
        incoming.write(b"not a handshake at all")
        with pytest.raises(ssl.SSLError):
            tls.do_handshake()

    good.protocol._hooks["data"] = fail
    for number in range(5):
        await good.peer.write(b"more")
        await good.protocol.wait_data(5 + 4 * (number + 1))
    good.transport.write(b"alive")
    assert await good.peer.read_exactly(5) == b"alive"
