"""Handshakes in pieces, ones that fail, and what comes right after one."""

import contextlib
import ssl

import pytest
from hosts import only_tcp
from net_helpers import MIB, Recorder, for_tls, iterations
from tls_ends import (
    PlainPeer,
    contexts,
    every_side,
    every_version,
    meet,
)


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
    task, peer = await meet("client", near, *contexts("client"))
    await peer.handshake()
    transport, protocol = await task
    assert protocol is near and transport is near.transport
    await iterations(2)
    assert known["done"] == [False, False]
    assert known["cipher"] and known["peercert"]["subject"]
    assert known["version"] == "TLSv1.3"
    assert known["peername"] == peer.sock.getsockname()
    assert known["closing"] is False
    transport.abort()
    await near.wait_lost()
    peer.close()


GARBAGE = {
    "http": b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n",
    "data": b"\x17\x03\x03\x00\x04data",
    "oversized": b"\x16\x03\x01\xff\xff" + bytes(70_000),
    "warnings": b"\x15\x03\x01\x00\x02\x01\x5a" * 40,
    "endless": b"\x16\x03\x01\x40\x00\x01\xff\xff\xff" + bytes(MIB),
}


@only_tcp
@pytest.mark.parametrize("garbage", GARBAGE)
async def test_a_server_receives_something_else_than_tls(
    loop, host, garbage, reports
):
    """The connection ends, the server goes on; debug mode alone reports it,
    in asyncio's words.
    """
    for_server, for_client = for_tls()
    await host.serve(**for_server)
    for debug in (True, False):
        loop.set_debug(debug)
        peer = PlainPeer(host.plain())
        with contextlib.suppress(ConnectionError):
            await peer.send(GARBAGE[garbage])
            await peer.recv_all()
        peer.close()
        await iterations(5)
    transport, near = await host.connect(**for_client)
    transport.close()
    assert await near.wait_lost() is None
    await host.made[2].wait_lost()
    assert host.made[0].names == host.made[1].names == []
    (report,) = reports
    assert report["message"] == (
        "Error on transport creation for incoming connection"
    )
    assert isinstance(report["exception"], (ssl.SSLError, ConnectionError))
    assert report["protocol"] is host.made[0]
    reports.clear()


@pytest.mark.native_tls
@every_side
@every_version
async def test_the_peer_that_we_refuse_gets_an_alert(
    run, side, version, reports
):
    """As from CPython after gh-98078."""
    near = Recorder()
    context, far = contexts(side, version)
    if side == "client":
        context = ssl.create_default_context()
        alert = "ALERT_UNKNOWN_CA"
    else:
        context.verify_mode = ssl.CERT_REQUIRED
        alert = "ALERT_(CERTIFICATE_REQUIRED|HANDSHAKE_FAILURE)"
    task, peer = await meet(side, near, context, far)
    with pytest.raises(ssl.SSLError, match=alert):
        await peer.drive(peer.tls.do_handshake)
        await peer.read()  # in 1.3 a client is done before it is judged
    assert await peer.expect_end() == b""
    peer.close()
    if task is not None:
        with pytest.raises(ssl.SSLCertVerificationError):
            await task
    await iterations(10)
    assert near.names == []
    assert reports == []
