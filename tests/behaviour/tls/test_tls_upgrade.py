"""start_tls: a plain connection becomes a TLS one in mid-stream."""

from __future__ import annotations

import asyncio
import contextlib
import socket
import ssl

import pytest
from net_helpers import (
    BufferedRecorder,
    Recorder,
    client_context,
    digest,
    iterations,
    pattern,
    tcp_socketpair,
)
from tls_ends import (
    HANDSHAKE,
    InnerPeer,
    PlainPeer,
    WirePeer,
    contexts,
    every_version,
)

UPGRADES = ("start-tls-client", "start-tls-server")
every_upgrade = pytest.mark.parametrize("side", UPGRADES)


async def plain(loop, protocol):
    """A plain transport with its peer's socket."""
    a, b = tcp_socketpair()
    a.setblocking(False)
    transport, _ = await loop.create_connection(lambda: protocol, sock=a)
    return transport, b


def upgrading(loop, transport, protocol, side, **options):
    """The task of start_tls."""
    near, _ = contexts(side)
    server_side = side == "start-tls-server"
    if not server_side:
        options.setdefault("server_hostname", "localhost")
    return loop.create_task(
        loop.start_tls(
            transport, protocol, near, server_side=server_side, **options
        )
    )


def wire_peer(sock, side, context=None):
    _, far = contexts(side)
    return WirePeer(sock, context or far, side == "start-tls-client")


@every_upgrade
@every_version
async def test_plain_text_precedes_tls(run, loop, side, version):
    """connection_made is called once, when the connection was plain."""
    protocol = Recorder()
    transport, sock = await plain(loop, protocol)
    peer = wire_peer(sock, side, contexts(side, version)[1])
    transport.write(b"STARTTLS")
    assert await peer.recv() == b"STARTTLS"
    await peer.send(b"OK")
    assert await protocol.wait_data(2) == b"OK"
    task = upgrading(loop, transport, protocol, side)
    await peer.handshake()
    secure = await task
    assert secure is not transport
    assert secure.get_protocol() is protocol
    assert protocol.transport is transport
    secure.write(b"secret")
    assert await peer.read_exactly(6) == b"secret"
    await peer.write(b"answer")
    assert await protocol.wait_data(8) == b"OKanswer"
    secure.close()
    assert await peer.read() == b""
    peer.close()
    assert await protocol.wait_lost() is None
    assert protocol.names == ["made", "data", "eof", "lost"]
    protocol.check()


@every_upgrade
async def test_the_upgrade_of_a_connection_at_eof_fails_at_once(loop, side):
    """The peer ends after its go-ahead; the protocol has kept it open."""
    protocol = Recorder(eof=lambda p: True)
    transport, sock = await plain(loop, protocol)
    with sock:
        sock.shutdown(socket.SHUT_WR)
        await protocol.wait_for("eof")
        await iterations()
        with pytest.raises(ConnectionResetError):
            await upgrading(loop, transport, protocol, side)


async def test_the_hello_arrives_in_the_iteration_of_start_tls(run, loop):
    """An event of the plain transport is due when the protocol changes."""
    for count in range(6):
        protocol = Recorder()
        transport, sock = await plain(loop, protocol)
        await iterations(count)
        peer = wire_peer(sock, "start-tls-server")
        with contextlib.suppress(ssl.SSLWantReadError):
            peer.tls.do_handshake()
        # No iteration is between the two.
        sock.send(peer.outgoing.read())
        task = upgrading(loop, transport, protocol, "start-tls-server")
        await peer.handshake()
        secure = await task
        assert protocol.data == b""
        secure.abort()
        await protocol.wait_lost()
        peer.close()


@every_upgrade
@pytest.mark.parametrize("after", [0, 2, None])
async def test_a_cancelled_start_tls_closes(run, loop, side, after, reports):
    """At each stage; None: in the middle of the handshake."""
    protocol = Recorder()
    transport, sock = await plain(loop, protocol)
    peer = wire_peer(sock, side)
    task = upgrading(loop, transport, protocol, side)
    if after is None:
        if side == "start-tls-client":
            await peer._pull()
        with contextlib.suppress(ssl.SSLWantReadError):
            peer.tls.do_handshake()
        await peer.flush()
        if side == "start-tls-server":
            await peer._pull()
    else:
        await iterations(after)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    if after == 0:
        # It had not begun: the connection is plain, and good.
        transport.write(b"plain")
        assert await peer.recv() == b"plain"
        transport.close()
    await peer.expect_end()
    peer.close()
    await iterations(5)
    assert transport.is_closing()
    assert reports == []


@pytest.mark.native_tls
@every_upgrade
async def test_start_tls_of_a_lost_connection_times_out(
    run, loop, side, reports
):
    """Nobody is left to tell that it is lost; asyncio waits for ever."""
    protocol = Recorder()
    transport, sock = await plain(loop, protocol)
    transport.abort()
    await protocol.wait_lost()
    with pytest.raises(ConnectionAbortedError):
        await upgrading(
            loop, transport, protocol, side, ssl_handshake_timeout=0.02
        )
    sock.close()
    await iterations(5)
    assert protocol.names == ["made", "lost"]
    assert reports == []


@every_upgrade
@pytest.mark.parametrize("how", ["abort", "close"])
async def test_start_tls_of_a_connection_that_is_about_to_be_lost(
    run, loop, side, how, reports
):
    """TLS hears of the end before it has begun."""
    protocol = Recorder()
    transport, sock = await plain(loop, protocol)
    loop.call_soon(getattr(transport, how))
    assert await upgrading(loop, transport, protocol, side) is None
    await protocol.wait_lost()
    sock.close()
    await iterations(5)
    assert protocol.names == ["made", "lost"]
    assert reports == []


@pytest.mark.parametrize("context", [None, object()])
async def test_a_context_that_is_none(run, loop, context):
    """It is refused before the connection is touched."""
    protocol = Recorder()
    transport, sock = await plain(loop, protocol)
    with pytest.raises(TypeError) as caught:
        await loop.start_tls(transport, protocol, context)
    assert str(caught.value) == (
        "sslcontext is expected to be an instance of ssl.SSLContext, "
        f"got {context!r}"
    )
    peer = PlainPeer(sock)
    transport.write(b"plain")
    assert await peer.recv() == b"plain"
    transport.abort()
    await protocol.wait_lost()
    peer.close()


async def test_a_transport_that_cannot(run, loop):
    transport = asyncio.Transport()
    with pytest.raises(TypeError) as caught:
        await loop.start_tls(transport, Recorder(), client_context())
    assert str(caught.value) == (
        f"transport {transport!r} is not supported by start_tls()"
    )


#: With a mark of 0 asyncio's outer transport pauses the inner one twice.
@pytest.mark.parametrize(
    "high", [None, pytest.param(0, marks=pytest.mark.native_tls)]
)
@pytest.mark.parametrize(
    ("side", "make"), [("client", BufferedRecorder), ("server", Recorder)]
)
async def test_tls_in_tls(tls_pair, loop, side, make, high):
    """Inside and outside each have a handshake, records and an end."""
    protocol = make()
    c = await tls_pair(protocol, side=side)
    outer = c.transport
    outer.set_write_buffer_limits(high)
    task = upgrading(loop, outer, protocol, f"start-tls-{side}")
    _, far = contexts(side)
    peer = InnerPeer(c.peer, far, side == "client")
    await peer.handshake()
    inner = await task
    assert inner is not outer
    assert inner.get_extra_info("ssl_object") is not (
        outer.get_extra_info("ssl_object")
    )
    assert inner.get_extra_info("peername") == (
        outer.get_extra_info("peername")
    )
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
async def test_tls_in_tls_ends_right_behind_its_first_data(
    tls_pair, loop, end
):
    """The outer transport closes, for TLS has no half-close.  The application
    has not closed the inner one.
    """
    protocol = Recorder()
    c = await tls_pair(protocol, side="server")
    task = upgrading(loop, c.transport, protocol, "start-tls-server")
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


async def test_a_stream_that_fails_to_upgrade(run, loop):
    a, b = tcp_socketpair()
    a.setblocking(False)
    reader, writer = await asyncio.open_connection(sock=a)
    transport = writer.transport
    peer = PlainPeer(b)
    task = loop.create_task(
        writer.start_tls(client_context(), server_hostname="localhost")
    )
    assert (await peer.recv())[0] == HANDSHAKE
    await peer.send(b"not TLS at all, and long enough to see that")
    with pytest.raises(ssl.SSLError):
        await task
    await peer.expect_end()
    assert transport.is_closing()
    peer.close()
    writer.close()
    # Else the GC may report its exception: without a GIL in another order.
    with contextlib.suppress(ssl.SSLError):
        await writer.wait_closed()
