"""Handshakes in pieces, ones that fail, and what comes right after one."""

from __future__ import annotations

import asyncio
import contextlib
import ssl

import pytest
from net_helpers import (
    MIB,
    Recorder,
    client_context,
    iterations,
    listening_socket,
    server_context,
    tcp_socketpair,
)
from tls_ends import (
    HANDSHAKE,
    PlainPeer,
    WirePeer,
    calling,
    connect_tls,
    contexts,
    every_side,
    every_version,
    tls_server,
)


class Crumbs(WirePeer):
    """A peer that sends a byte at a time."""

    async def send(self, data):
        for number in range(len(data)):
            await super().send(data[number : number + 1])
            await iterations(1)


async def arriving(loop, near, context, **options):
    """A client of the loop that has said hello: (task, the peer's socket)."""
    with listening_socket() as listener:
        task = connect_tls(listener, lambda: near, context, **options)
        sock, _ = await loop.sock_accept(listener)
    return task, sock


@every_version
async def test_a_client_reads_a_byte_at_a_time(run, loop, version):
    near = Recorder()
    client, server = contexts("client", version)
    task, sock = await arriving(loop, near, client)
    peer = Crumbs(sock, server, True)
    await peer.handshake()
    transport, _ = await task
    await peer.write(b"data")
    assert await near.wait_data(4) == b"data"
    transport.abort()
    await near.wait_lost()
    near.check()
    peer.close()


@every_version
async def test_a_server_reads_a_byte_at_a_time(run, loop, version):
    _, context = contexts("server", version)
    async with tls_server() as (address, seen):
        peer = Crumbs(await calling(loop, address), context, False)
        await peer.handshake()
        await peer.write(b"data")
        assert await seen[0].wait_data(4) == b"data"
        peer.close()


@every_side
@every_version
async def test_data_in_the_segment_of_the_handshake(run, loop, side, version):
    """Nothing of it is lost; whether the waiter is first, the loops differ."""
    if (side, version) in [("client", "1.3"), ("server", "1.2")]:
        pytest.skip("the peer's handshake does not end with its own flight")
    near = Recorder()
    context, far = contexts(side, version)
    if side == "client":
        task, sock = await arriving(loop, near, context)
        peer = WirePeer(sock, far, True)
    else:
        server = await loop.create_server(
            lambda: near, "127.0.0.1", 0, ssl=context
        )
        address = server.sockets[0].getsockname()
        peer = WirePeer(await calling(loop, address), far, False)
        server.close()
        task = None
    await peer.attempt(peer.tls.do_handshake)
    flight = peer.outgoing.read()
    assert flight
    await peer.send(flight + peer.seal(b"early") + peer.seal_close())
    if task is not None:
        await task
    assert await near.wait_lost() is None
    assert near.data == b"early"
    assert near.names == ["made", "data", "eof", "lost"]
    near.check()
    await peer.expect_end()
    peer.close()


async def test_the_order_at_the_end_of_a_handshake(run, loop):
    """Everything is known when connection_made is called."""
    known = {}

    def made(protocol):
        info = protocol.transport.get_extra_info
        known.update(
            cipher=info("cipher"),
            peercert=info("peercert"),
            version=info("ssl_object").version(),
            peername=info("peername"),
            closing=protocol.transport.is_closing(),
            done=[task.done()],
        )
        # The waiter is woken after connection_made.
        loop.call_soon(lambda: known["done"].append(task.done()))

    near = Recorder(made=made)
    task, sock = await arriving(loop, near, client_context())
    peer = WirePeer(sock, server_context(), True)
    await peer.handshake()
    transport, protocol = await task
    assert protocol is near and transport is near.transport
    await iterations(2)
    assert known["done"] == [False, False]
    assert known["cipher"] and known["peercert"]["subject"]
    assert known["version"] == "TLSv1.3"
    assert known["peername"] == sock.getsockname()
    assert known["closing"] is False
    transport.abort()
    await near.wait_lost()
    peer.close()


GARBAGE = {
    "http": b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n",
    "zeros": bytes(64),
    "alert": b"\x15\x03\x01\x00\x02\x02\x28",
    "data": b"\x17\x03\x03\x00\x04data",
    "ssl2": b"\x80\x2e\x01\x00\x02" + bytes(64),
    "oversized": b"\x16\x03\x01\xff\xff" + bytes(70_000),
    "empty": b"\x16\x03\x01\x00\x00" * 40,
    "warnings": b"\x15\x03\x01\x00\x02\x01\x5a" * 40,
    "endless": b"\x16\x03\x01\x40\x00\x01\xff\xff\xff" + bytes(MIB),
}
every_garbage = pytest.mark.parametrize("garbage", GARBAGE)


@every_garbage
async def test_a_server_receives_something_else_than_tls(
    run, loop, garbage, reports
):
    """The connection ends without a report, the server goes on."""
    async with tls_server() as (address, seen):
        peer = PlainPeer(await calling(loop, address))
        with contextlib.suppress(ConnectionError):
            await peer.send(GARBAGE[garbage])
            await peer.recv_all()
        peer.close()
        await iterations(5)
        assert seen[0].names == []
        _, near = await loop.create_connection(
            Recorder,
            *address,
            ssl=client_context(),
            server_hostname="localhost",
        )
        near.transport.close()
        assert await near.wait_lost() is None
    assert reports == []


@every_garbage
async def test_a_client_receives_something_else_than_tls(
    run, loop, garbage, reports
):
    """create_connection raises OpenSSL's error, without a protocol call."""
    near = Recorder()
    task, sock = await arriving(loop, near, client_context())
    peer = PlainPeer(sock)
    with contextlib.suppress(ConnectionError):
        await peer.send(GARBAGE[garbage])
    with pytest.raises(ssl.SSLError) as caught:
        await task
    assert caught.value.library == "SSL"
    with contextlib.suppress(ConnectionError):
        await peer.recv_all()
    peer.close()
    await iterations(5)
    assert near.names == []
    assert reports == []


@every_side
@pytest.mark.parametrize("end", ["eof", "reset"])
@pytest.mark.parametrize("part", [0, 1, 5, 0.5, -1])
async def test_a_handshake_that_breaks_off(
    run, loop, side, end, part, reports
):
    """After so many bytes of its first flight the peer is gone."""
    near = Recorder()
    if side == "client":
        task, sock = await arriving(loop, near, client_context())
        peer = WirePeer(sock, server_context(), True)
        await peer._pull()
    else:
        server = await loop.create_server(
            lambda: near, "127.0.0.1", 0, ssl=server_context()
        )
        address = server.sockets[0].getsockname()
        peer = WirePeer(await calling(loop, address), client_context(), False)
        server.close()
    with contextlib.suppress(ssl.SSLWantReadError):
        peer.tls.do_handshake()
    flight = peer.outgoing.read()
    assert flight[0] == HANDSHAKE
    cut = int(part * len(flight)) if part == 0.5 else part
    await peer.send(flight[:cut])
    if end == "reset":
        await iterations(3)
        peer.reset()
    else:
        peer.send_eof()
    if side == "client":
        with pytest.raises(ConnectionResetError):
            await task
    if end == "eof":
        await peer.expect_end()
        peer.close()
    await iterations(10)
    assert near.names == []
    assert reports == []


@pytest.mark.reports
async def test_a_failure_is_reported_in_debug_mode(run, debug, reports):
    """asyncio's words, with the exception and the protocol."""
    async with tls_server() as (address, seen):
        peer = PlainPeer(await calling(debug, address))
        await peer.send(GARBAGE["http"])
        with contextlib.suppress(ConnectionError):
            await peer.recv_all()
        peer.close()
        await iterations(5)
    (report,) = reports
    assert report["message"] == (
        "Error on transport creation for incoming connection"
    )
    assert isinstance(report["exception"], ssl.SSLError)
    assert report["protocol"] is seen[0]


@every_side
@every_version
async def test_the_peer_refuses_us(run, loop, side, version, reports):
    """Its alert is the error's text: it knows why, and we say it."""
    near = Recorder()
    context, far = contexts(side, version)
    if side == "client":
        far.verify_mode = ssl.CERT_REQUIRED
        task, sock = await arriving(loop, near, context)
        peer = WirePeer(sock, far, True)
    else:
        far = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        far.maximum_version = far.minimum_version = getattr(
            ssl.TLSVersion, "TLSv1_" + version[-1]
        )
        server = await loop.create_server(
            lambda: near, "127.0.0.1", 0, ssl=context
        )
        address = server.sockets[0].getsockname()
        peer = WirePeer(await calling(loop, address), far, False)
        server.close()
    with pytest.raises(ssl.SSLError):
        await peer.handshake()
    exc = None
    if side == "client":
        try:
            await task
        except ssl.SSLError as error:
            exc = error
        else:
            # In 1.3 a client is done before the server has judged it.
            assert version == "1.3"
            exc = await near.wait_lost()
            assert near.names == ["made", "lost"]
        assert isinstance(exc, OSError)
    else:
        await iterations(10)
        assert near.names == []
    if isinstance(exc, ssl.SSLError):
        assert "ALERT" in exc.reason
    assert reports == []


@pytest.mark.native_tls
@every_side
@every_version
async def test_the_peer_that_we_refuse_gets_an_alert(
    run, loop, side, version, reports
):
    """As from CPython after gh-98078."""
    near = Recorder()
    context, far = contexts(side, version)
    if side == "client":
        untrusting = ssl.create_default_context()
        task, sock = await arriving(loop, near, untrusting)
        peer = WirePeer(sock, far, True)
        alert = "ALERT_UNKNOWN_CA"
    else:
        context.verify_mode = ssl.CERT_REQUIRED
        server = await loop.create_server(
            lambda: near, "127.0.0.1", 0, ssl=context
        )
        address = server.sockets[0].getsockname()
        peer = WirePeer(await calling(loop, address), far, False)
        server.close()
        alert = "ALERT_(CERTIFICATE_REQUIRED|HANDSHAKE_FAILURE)"
    with pytest.raises(ssl.SSLError, match=alert):
        await peer.drive(peer.tls.do_handshake)
        await peer.read()  # in 1.3 a client is done before it is judged
    assert await peer.expect_end() == b""
    peer.close()
    if side == "client":
        with pytest.raises(ssl.SSLCertVerificationError):
            await task
    await iterations(10)
    assert near.names == []
    assert reports == []


@every_side
async def test_a_silent_peer_is_left(run, loop, side, reports):
    """The words of the timeout are asyncio's."""
    if side == "client":
        near = Recorder()
        started = loop.time()
        task, sock = await arriving(
            loop, near, client_context(), ssl_handshake_timeout=0.03
        )
        peer = PlainPeer(sock)
        with pytest.raises(ConnectionAbortedError) as caught:
            await task
        assert loop.time() - started >= 0.029
        assert str(caught.value) == (
            "SSL handshake is taking longer than 0.03 seconds: "
            "aborting the connection"
        )
        assert near.names == []
        await peer.expect_end()
        peer.close()
    else:
        async with tls_server(ssl_handshake_timeout=0.03) as (address, seen):
            peer = PlainPeer(await calling(loop, address))
            assert await peer.expect_end() == b""
            peer.close()
            await iterations(5)
            assert seen[0].names == []
    assert reports == []


async def test_a_handshake_timeout_ends_with_the_handshake(tls_pair, loop):
    """The timer of a handshake that is over does not fire."""
    c = await tls_pair(ssl_handshake_timeout=1)
    alarm = loop.create_future()
    loop.call_later(1.02, alarm.set_result, None)
    await alarm
    await c.settle()


@pytest.mark.parametrize("stage", ["connect", "hello", "flight", "iterations"])
async def test_create_connection_is_cancelled(run, loop, stage, reports):
    """The peer sees the end; no protocol method was called."""
    near = Recorder()
    with listening_socket() as listener:
        task = connect_tls(listener, lambda: near, client_context())
        if stage == "connect":
            await iterations(1)
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task
            return
        sock, _ = await loop.sock_accept(listener)
    peer = WirePeer(sock, server_context(), True)
    await peer._pull()
    if stage != "hello":
        with contextlib.suppress(ssl.SSLWantReadError):
            peer.tls.do_handshake()
        await peer.flush()
    if stage == "iterations":
        await iterations(1)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    if stage != "iterations":
        await peer.expect_end()
    peer.close()
    if near.count("made"):
        # The handshake was over, so that the connection was closed well.
        assert stage == "iterations"
        await near.wait_lost()
    await iterations(5)
    assert reports == []


@pytest.mark.parametrize("call", ["close", "abort"])
async def test_the_plain_transport_ends_in_the_handshake(
    run, loop, call, reports
):
    """start_tls does not wait for a peer that is gone."""
    a, b = tcp_socketpair()
    a.setblocking(False)
    protocol = Recorder()
    plain, _ = await loop.create_connection(lambda: protocol, sock=a)
    task = loop.create_task(
        loop.start_tls(
            plain, protocol, client_context(), server_hostname="localhost"
        )
    )
    peer = PlainPeer(b)
    assert (await peer.recv())[0] == HANDSHAKE
    getattr(plain, call)()
    await peer.expect_end()
    await asyncio.wait([task])
    assert task.exception() is None or isinstance(
        task.exception(), (ConnectionError, ssl.SSLError)
    )
    peer.close()
    await iterations(5)
    assert plain.is_closing()
    assert reports == []


async def test_a_server_that_closes_ends_a_handshake_well(run, loop):
    """Who was accepted is served."""
    near = Recorder()
    server = await loop.create_server(
        lambda: near, "127.0.0.1", 0, ssl=server_context()
    )
    sock = await calling(loop, server.sockets[0].getsockname())
    peer = WirePeer(sock, client_context(), False)
    with contextlib.suppress(ssl.SSLWantReadError):
        peer.tls.do_handshake()
    await peer.flush()
    await peer._pull()
    server.close()
    await peer.handshake()
    await peer.write(b"served")
    assert await near.wait_data(6) == b"served"
    peer.close()
    await near.wait_lost()


@pytest.mark.reports
def test_a_loop_closed_in_the_middle_of_handshakes(loop_factory):
    """Nothing is left referenced, and no thread or timer goes on."""
    loop = loop_factory()
    ends = []

    async def main():
        task, sock = await arriving(loop, Recorder(), client_context())
        ends.append(sock)
        await loop.sock_recv(sock, 10)
        task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await task
        server = await loop.create_server(
            Recorder, "127.0.0.1", 0, ssl=server_context()
        )
        sock = await calling(loop, server.sockets[0].getsockname())
        ends.append(sock)
        await loop.sock_sendall(sock, b"\x16\x03\x01")
        await iterations(5)
        server.close()
        sock.close()
        await iterations(5)

    loop.run_until_complete(main())
    loop.close()
    for sock in ends:
        sock.close()


async def test_many_handshakes_fail_and_none_is_left(run, loop, reports):
    """A hundred clients that all break off in another place."""
    async with tls_server() as (address, seen):
        peers = []
        for number in range(100):
            peer = WirePeer(
                await calling(loop, address), client_context(), False
            )
            with contextlib.suppress(ssl.SSLWantReadError):
                peer.tls.do_handshake()
            hello = peer.outgoing.read()
            await peer.send(hello[: number * len(hello) // 100])
            peers.append(peer)
        for peer in peers:
            peer.close()
        while len(seen) < 100:
            await iterations(1)
        await iterations(10)
        assert all(protocol.names == [] for protocol in seen)
    assert reports == []


async def test_a_hello_that_is_sent_is_whole(run, loop):
    """The first flight is one segment, from the first byte on."""
    near = Recorder()
    task, sock = await arriving(loop, near, client_context())
    peer = PlainPeer(sock)
    hello = await peer.recv()
    assert hello[0] == HANDSHAKE
    assert len(hello) == 5 + int.from_bytes(hello[3:5], "big")
    peer.close()
    with pytest.raises(ConnectionResetError):
        await task
