"""start_tls: a plain connection becomes a TLS one in mid-stream.

The task that awaits start_tls has the new transport only when it returns, so
a protocol that answers earlier answers in plain text on an encrypted
connection.  asyncio delivers data that comes with the end of the handshake
early; fastloop holds it until the new transport is used, or for three
iterations.
"""

import asyncio
import contextlib
import socket
import ssl

import pytest
from net_helpers import (
    MIB,
    BufferedRecorder,
    Recorder,
    digest,
    iterations,
    pattern,
    spin,
)
from patience import PATIENCE
from tls_ends import (
    WAYS,
    InnerPeer,
    WirePeer,
    contexts,
    every_side,
    open_plain,
    start_tls,
)

every_upgrade = pytest.mark.parametrize("side", WAYS[2:])


def every_last_word(test):
    """Mark a test of data that is behind the handshake.

    Its parameters say where the peer has the last word of the handshake.
    """
    ends = [("start-tls-client", "1.2"), ("start-tls-server", "1.3")]
    each = pytest.mark.parametrize(("side", "version"), ends)
    return pytest.mark.native_tls(each(test))


async def direct(call):
    return await call


async def gathered(call):
    (result,) = await asyncio.gather(call)
    return result


async def in_a_group(call):
    async with asyncio.TaskGroup() as group:
        task = group.create_task(call)
    return task.result()


class Upgrade:
    """A plain connection that becomes one of TLS, and its peer.

    `protocol.transport` is what the protocol knows: the plain transport until
    start_tls has returned.
    """

    def __init__(self, protocol, side, version, way):
        self.protocol, self.side, self.way = protocol, side, way
        self.near, self.far = contexts(side, version)
        self.secure = None

    async def begin(self, queued):
        self.plain, sock = await open_plain(self.protocol)
        self.plain.write(queued)
        self.peer = WirePeer(sock, self.far, self.side == "start-tls-client")
        self.task = asyncio.create_task(self.upgrade())
        await iterations(3)  # a server's hello is not for the plain protocol

    async def upgrade(self):
        self.secure = await self.way(
            start_tls(self.plain, self.protocol, self.side, self.near)
        )
        self.protocol.events.append(("upgraded", None))
        self.protocol.transport = self.secure
        return self.secure

    async def last_flight(self):
        """Shake hands but for the peer's last word, which is returned."""
        await self.peer.attempt(self.peer.tls.do_handshake)
        flight = self.peer.outgoing.read()
        assert flight
        return flight

    async def finish(self):
        self.plain.abort()
        if self.secure is not None:
            await self.protocol.wait_lost()
        await iterations(3)
        self.peer.close()


@pytest.fixture
def upgrading(run, side, version):
    """Return what begins an upgrade, which is ended after the test."""
    begun = []

    async def begin(protocol, way=direct, queued=b""):
        begun.append(Upgrade(protocol, side, version, way))
        await begun[-1].begin(queued)
        return begun[-1]

    yield begin
    run(begun[0].finish())


# -- what is behind the handshake ---------------------------------------------


@every_last_word
@pytest.mark.parametrize(
    ("make", "way"),
    [
        (Recorder, direct),
        (BufferedRecorder, direct),
        (Recorder, gathered),
        (Recorder, asyncio.shield),
        (Recorder, in_a_group),
        (
            Recorder,
            lambda call: asyncio.wait_for(asyncio.shield(call), PATIENCE),
        ),
    ],
)
async def test_an_answer_to_the_first_data_is_encrypted(upgrading, make, way):
    """The protocol answers by the transport that it knows."""
    protocol = make(data=lambda p, data: p.transport.write(b"answer"))
    c = await upgrading(protocol, way)
    flight = await c.last_flight()
    await c.peer.send(flight + c.peer.seal(b"early"))
    assert await c.peer.read_exactly(6) == b"answer"
    assert protocol.names == ["made", "upgraded", "data"]
    assert protocol.data == b"early"


@every_last_word
@pytest.mark.parametrize(
    ("use", "steps"),
    [
        (lambda transport, protocol: repr(transport), 4),
        (lambda transport, protocol: transport.get_extra_info("cipher"), 1),
        (lambda transport, protocol: transport.set_protocol(protocol), 1),
        (lambda transport, protocol: transport.is_closing(), 1),
        (lambda transport, protocol: transport.write(b"first"), 1),
        (lambda transport, protocol: transport.writelines([b"first"]), 1),
    ],
)
async def test_first_data_waits_for_the_first_use(upgrading, use, steps):
    """Of the new transport, or for three iterations."""
    protocol, waited = Recorder(), []

    async def use_and_count(call):
        secure = await call
        use(secure, protocol)
        while not protocol.data:
            waited.append(await asyncio.sleep(0))
        return secure

    c = await upgrading(protocol, use_and_count)
    await c.peer.send(await c.last_flight() + c.peer.seal(b"early"))
    await c.task
    assert len(waited) == steps


class Odd(BaseException):
    """No Exception, and nothing that ends a program."""


@every_last_word
@pytest.mark.parametrize("kind", [Odd, asyncio.CancelledError])
async def test_exceptions_of_data_received_close_the_connection(
    upgrading, kind, reports
):
    """As what later data raises does."""

    def fail(*args):
        raise kind("on purpose")

    c = await upgrading(Recorder(data=fail))
    flight = await c.last_flight()
    await c.peer.send(flight + c.peer.seal(b"early"))
    exc = await c.protocol.wait_lost()
    assert isinstance(exc, kind)
    assert [report["exception"] for report in reports] == [exc]
    assert c.protocol.names == ["made", "upgraded", "data", "lost"]
    reports.clear()


@every_last_word
async def test_writing_paused_before_start_tls_is_resumed_after_it(upgrading):
    """And what it writes then is encrypted: it waits for the transport."""
    protocol = Recorder(resume=lambda p: p.transport.write(b"resumed"))
    data = pattern(6_000_000)
    c = await upgrading(protocol, queued=data)
    assert protocol.names == ["made", "pause"]
    assert digest(await c.peer.recv_exactly(len(data))) == digest(data)
    await c.peer.handshake()
    assert await c.peer.read_exactly(7) == b"resumed"
    assert protocol.names == ["made", "pause", "upgraded", "resume"]


@every_last_word
async def test_a_stream_is_upgraded_before_it_is_fed(loop, side, version):
    """StreamWriter.start_tls.  The hello may be in the segment of a request:
    the reader has read it as plain text, and it is TLS's.
    """
    near, far = contexts(side, version)
    server = side == "start-tls-server"
    ready, reader = loop.create_future(), asyncio.StreamReader()
    protocol = asyncio.StreamReaderProtocol(
        reader, (lambda r, w: ready.set_result(w)) if server else None
    )
    transport, sock = await open_plain(protocol)
    if not server:
        ready.set_result(
            asyncio.StreamWriter(transport, protocol, reader, loop)
        )
    writer = await ready
    peer = WirePeer(sock, far, not server)
    with contextlib.suppress(ssl.SSLWantReadError):
        peer.tls.do_handshake()
    await peer.send(b"STARTTLS\n" + peer.outgoing.read())
    assert await reader.readline() == b"STARTTLS\n"
    hostname = None if server else "localhost"

    async def upgrade():
        await writer.start_tls(near, server_hostname=hostname)
        assert not reader._buffer
        writer.write(await reader.readline())

    task = asyncio.create_task(upgrade())
    await peer.attempt(peer.tls.do_handshake)
    early = peer.outgoing.read() + peer.seal(b"early\n") + peer.seal_close()
    await peer.send(early)
    await task
    assert await reader.read() == b""
    assert await peer.read_exactly(6) == b"early\n"
    assert await peer.read() == b""
    peer.close()
    writer.close()
    await writer.wait_closed()


@pytest.mark.native_tls
async def test_a_stream_with_unread_bytes_closes(loop):
    """Its reader has paused the plain transport, which gets the answer."""
    near, far = contexts("client")
    reader = asyncio.StreamReader()
    protocol = asyncio.StreamReaderProtocol(reader)
    transport, sock = await open_plain(protocol)
    writer = asyncio.StreamWriter(transport, protocol, reader, loop)
    peer = WirePeer(sock, far, True)
    upgrade = asyncio.ensure_future(
        writer.start_tls(near, server_hostname="localhost")
    )
    await peer.handshake()
    await upgrade
    sending = asyncio.ensure_future(peer.write(bytes(MIB)))
    await spin(lambda: not transport.is_reading())
    writer.close()
    await sending
    assert await peer.read() == b""
    await peer.close_notify()
    await writer.wait_closed()
    peer.close()


# -- connections that end -----------------------------------------------------


@every_upgrade
async def test_the_upgrade_of_a_connection_at_eof_fails_at_once(run, side):
    """The peer ends after its go-ahead; the protocol has kept it open."""
    protocol = Recorder(eof=lambda p: True)
    plain, sock = await open_plain(protocol)
    with sock:
        sock.shutdown(socket.SHUT_WR)
        await protocol.wait_for("eof")
        await iterations()
        with pytest.raises(ConnectionResetError):
            await start_tls(plain, protocol, side)


#: asyncio waits for ever: nobody is left to tell that it is lost.
lost_before = pytest.param("before", marks=pytest.mark.native_tls)


@every_upgrade
@pytest.mark.parametrize("when", [lost_before, "soon", "in the handshake"])
@pytest.mark.parametrize("how", ["abort", "close"])
async def test_start_tls_ends_with_its_connection(
    run, loop, side, when, how, reports
):
    protocol = Recorder()
    plain, sock = await open_plain(protocol)
    end = getattr(plain, how)
    if when == "before":
        end()
        await protocol.wait_lost()
    elif when == "soon":
        loop.call_soon(end)
    timeout = 0.02 if when == "before" else None
    task = asyncio.ensure_future(
        start_tls(plain, protocol, side, ssl_handshake_timeout=timeout)
    )
    if when == "in the handshake":
        await iterations(5)
        end()
    await asyncio.wait([task])
    if when == "before":
        assert isinstance(task.exception(), ConnectionAbortedError)
    elif when == "soon":
        assert task.result() is None
    else:
        kinds = (type(None), ConnectionError, ssl.SSLError)
        assert isinstance(task.exception(), kinds)
    sock.close()
    await iterations(5)
    assert plain.is_closing()
    assert when == "in the handshake" or protocol.names == ["made", "lost"]
    assert reports == []


# -- TLS in TLS ---------------------------------------------------------------


@pytest.mark.native_tls
@every_side
async def test_a_failed_inner_handshake_ends_the_outer_connection(
    tls_pair, side, reports
):
    """start_tls raises OpenSSL's error and not a TypeError of asyncio's."""
    c = await tls_pair(side=side)
    task = asyncio.ensure_future(start_tls(c.transport, c.protocol, side))
    await c.peer.write(b"not TLS at all, and long enough to see that")
    with pytest.raises(ssl.SSLError):
        await task
    assert c.transport.is_closing()
    assert isinstance(await c.protocol.wait_lost(), ssl.SSLError)
    await c.peer.expect_end()
    assert c.protocol.names == ["made", "lost"]
    assert reports == []


#: With a mark of 0 asyncio's outer transport pauses the inner one twice.
@pytest.mark.parametrize(
    "high", [None, pytest.param(0, marks=pytest.mark.native_tls)]
)
@pytest.mark.parametrize(
    ("side", "make"), [("client", BufferedRecorder), ("server", Recorder)]
)
async def test_tls_in_tls(tls_pair, side, make, high):
    """Inside and outside each have a handshake, records and an end."""
    protocol = make()
    c = await tls_pair(protocol, side=side)
    outer = c.transport
    outer.set_write_buffer_limits(high)
    task = asyncio.ensure_future(start_tls(outer, protocol, side))
    peer = InnerPeer(c.peer, contexts(side)[1], side == "client")
    await peer.handshake()
    inner = await task
    ours, theirs = inner.get_extra_info, outer.get_extra_info
    assert inner is not outer
    assert ours("ssl_object") is not theirs("ssl_object")
    assert ours("peername") == theirs("peername")
    data = pattern(300_000)
    inner.write(data)
    assert digest(await peer.read_exactly(len(data))) == digest(data)
    await peer.write(data)
    await protocol.wait_data(len(data))
    assert digest(protocol.data) == digest(data)
    inner.close()
    assert await peer.read() == b""
    await peer.close_notify()
    assert await c.peer.read() == b""
    await c.peer.close_notify()
    assert await protocol.wait_lost() is None
    assert protocol.names == ["made", "data", "eof", "lost"]


@pytest.mark.parametrize("end", ["close_notify", "fin", "both"])
async def test_tls_in_tls_ends_right_behind_its_first_data(tls_pair, end):
    """The outer transport closes, for TLS has no half-close.  The application
    has not closed the inner one.
    """
    protocol = Recorder()
    c = await tls_pair(protocol, side="server")
    task = asyncio.ensure_future(start_tls(c.transport, protocol, "server"))
    peer = InnerPeer(c.peer, contexts("server")[1], False)
    await peer.attempt(peer.tls.do_handshake)
    flight = c.peer.seal(peer.outgoing.read() + peer.seal(b"early"))
    if end != "fin":
        flight += c.peer.seal_close()
    await c.peer.send(flight)
    if end != "close_notify":
        c.peer.send_eof()
    await task
    assert await protocol.wait_lost() is None
    assert protocol.data == b"early"
    assert protocol.names == ["made", "data", "eof", "lost"]
