"""A protocol that raises: what is reported, and what ends."""

from __future__ import annotations

import asyncio
import contextlib
import ssl

import pytest
from net_helpers import (
    BufferedRecorder,
    Recorder,
    client_context,
    iterations,
    listening_socket,
)
from tls_ends import (
    APPLICATION_DATA,
    WirePeer,
    connect_tls,
    contexts,
    every_side,
    every_version,
    tls_server,
)

pytestmark = pytest.mark.reports


def fail(*args):
    raise ZeroDivisionError("on purpose")


def cancel(*args):
    raise asyncio.CancelledError("on purpose")


@every_side
@pytest.mark.parametrize(
    ("make", "method", "hook", "error"),
    [
        (Recorder, "data", fail, ZeroDivisionError),
        (Recorder, "data", cancel, asyncio.CancelledError),
        (BufferedRecorder, "data", fail, ZeroDivisionError),
        (BufferedRecorder, "data", cancel, asyncio.CancelledError),
        (BufferedRecorder, "get_buffer", fail, ZeroDivisionError),
        (BufferedRecorder, "get_buffer", lambda p, hint: 5, TypeError),
    ],
)
async def test_an_exception_while_reading_ends_the_connection(
    tls_pair, side, make, method, hook, error, reports
):
    c = await tls_pair(make(), side=side)
    await c.settle()
    above = c.transport._ssl_protocol
    below = above._transport
    c.protocol._hooks[method] = hook
    await c.peer.write(b"data")
    exc = await c.protocol.wait_lost()
    assert isinstance(exc, error)
    (report,) = reports
    assert report["message"] == (
        "Fatal error on SSL protocol"
        if hook is not cancel  # the transport below reports that one
        else "Fatal error: protocol.buffer_updated() call failed."
    )
    assert report["exception"] is exc
    assert report["transport"] is below
    assert report["protocol"] is above
    assert c.protocol.names == ["made", "data", "lost"]
    reports.clear()


@every_side
@pytest.mark.parametrize("way", [fail, cancel])
async def test_nothing_is_received_after_an_exception(
    tls_pair, side, way, reports
):
    """Though the protocol has asked for the rest before it raised."""

    def resume_and_fail(*args):
        c.transport.pause_reading()
        c.transport.resume_reading()
        way()

    c = await tls_pair(Recorder(data=resume_and_fail), side=side)
    c.transport.pause_reading()
    await c.peer.write(b"d" * 200_000)
    c.transport.resume_reading()
    await c.protocol.wait_lost()
    assert c.protocol.names == ["made", "data", "lost"]
    assert len(reports) == 1
    reports.clear()


@every_side
@pytest.mark.parametrize("end", ["close_notify", "ragged"])
async def test_eof_received(tls_pair, side, end, reports):
    c = await tls_pair(Recorder(eof=fail), side=side)
    await c.settle()
    if end == "ragged":
        c.peer.send_eof()
    else:
        await c.peer.close_notify()
    exc = await c.protocol.wait_lost()
    assert isinstance(exc, ZeroDivisionError)
    (report,) = reports
    assert report["message"] == "Error calling eof_received()"
    assert report["exception"] is exc
    assert c.protocol.count("eof") == c.protocol.count("lost") == 1
    reports.clear()


@every_version
async def test_connection_made_of_a_client(run, loop, version, reports):
    """create_connection raises it, and the connection is lost with it."""
    near = Recorder(made=fail)
    context, far = contexts("client", version)
    with listening_socket() as listener:
        task = connect_tls(listener, lambda: near, context)
        sock, _ = await loop.sock_accept(listener)
    peer = WirePeer(sock, far, True)
    with contextlib.suppress(ssl.SSLError, ConnectionError):
        await peer.handshake()
    with pytest.raises(ZeroDivisionError):
        await task
    exc = await near.wait_lost()
    assert isinstance(exc, ZeroDivisionError)
    assert near.names == ["made", "lost"]
    assert [type(r["exception"]) for r in reports] == [ZeroDivisionError]
    peer.close()
    await iterations(3)
    reports.clear()
    del exc, task


@pytest.mark.native_tls
async def test_exceptions_of_connection_made_are_reported(run, loop, reports):
    """asyncio says that it was data_received's, or buffer_updated's."""
    async with tls_server(lambda: Recorder(made=fail)) as (address, seen):
        with contextlib.suppress(OSError):
            _, near = await loop.create_connection(
                Recorder,
                *address,
                ssl=client_context(),
                server_hostname="localhost",
            )
            await near.wait_lost()
        exc = await seen[0].wait_lost()
        assert seen[0].names == ["made", "lost"]
    (report,) = [r for r in reports if r["exception"] is exc]
    assert report["message"] == (
        "Fatal error: protocol.connection_made() call failed."
    )
    assert report["protocol"] is seen[0].transport._ssl_protocol
    reports.clear()


@every_side
async def test_connection_lost(tls_pair, side, reports):
    c = await tls_pair(Recorder(lost=fail), side=side)
    c.transport.abort()
    await c.protocol.wait_lost()
    await iterations(2)
    (report,) = reports
    assert report["message"].startswith("Exception in callback")
    assert isinstance(report["exception"], ZeroDivisionError)
    reports.clear()


@every_side
async def test_lines_that_are_no_bytes(tls_pair, side, reports):
    """writelines() of text ends the connection, as asyncio has it."""
    c = await tls_pair(side=side)
    c.transport.writelines(["text"])
    exc = await c.protocol.wait_lost()
    assert isinstance(exc, TypeError)
    (report,) = reports
    assert report["message"] == "Fatal error on SSL protocol"
    reports.clear()


class RaisesOnce:
    """A callback that raises an exception the first time it is armed."""

    def __init__(self, kind, armed=True):
        self.kind = kind
        self.armed = armed

    def __call__(self, *args):
        if self.armed:
            self.armed = False
            raise self.kind


@every_side
@pytest.mark.leaves_tasks
@pytest.mark.parametrize(
    ("kind", "method"),
    [
        (KeyboardInterrupt, "data"),
        (SystemExit, "data"),
        (KeyboardInterrupt, "eof"),
    ],
)
def test_exit_exceptions_leave_the_loop(
    run, loop, tls_pair, side, kind, method, reports
):
    """It propagates out of run_forever()."""
    end = RaisesOnce(kind)
    c = run(tls_pair(Recorder(**{method: end}), side=side))
    with pytest.raises(kind):
        if method == "data":
            run(c.peer.write(b"data"))
        else:
            run(c.peer.close_notify())
        run(c.protocol.wait_for("lost"))
    assert reports == []
    if method == "data":
        run(c.peer.write(b"more"))
        assert run(c.protocol.wait_data(8)) == b"datamore"
    else:
        c.transport.abort()


@every_side
@pytest.mark.parametrize("method", ["pause", "resume"])
async def test_flow_control(tls_pair, side, method, reports):
    """It is reported, and the connection goes on."""
    c = await tls_pair(Recorder(**{method: fail}), side=side)
    total = 0
    while not c.protocol.count("pause"):
        c.transport.write(bytes(65536))
        total += 65536
    await c.peer.read_exactly(total)
    await c.protocol.wait_for("resume")
    (report,) = reports
    assert report["message"] == f"protocol.{method}_writing() failed"
    assert isinstance(report["exception"], ZeroDivisionError)
    assert report["transport"] is c.transport
    await c.settle()
    reports.clear()


#: An APPLICATION_DATA record that nothing can decrypt.
BAD = bytes([APPLICATION_DATA, 3, 3, 0, 32]) + bytes(32)


@every_side
@pytest.mark.native_tls
@pytest.mark.leaves_tasks
@pytest.mark.parametrize("make", [Recorder, BufferedRecorder])
@pytest.mark.parametrize(
    ("method", "behind"),
    [("data", "more"), ("data", "the end"), ("eof", "the end"), ("data", BAD)],
    ids=["data, more", "data, end", "eof", "data, a bad record"],
)
def test_what_follows_arrives_after_an_exit_exception(
    run, loop, settled_pair, side, make, method, behind, reports
):
    """It was read with the data, and the peer sends nothing more."""
    end = RaisesOnce(KeyboardInterrupt, armed=False)
    c = run(settled_pair(make(**{method: end}), side=side))
    size = 10_000
    wire = c.peer.seal(bytes(size))
    if behind == "the end":
        wire += c.peer.seal_close()
    elif behind is BAD:
        wire += BAD
    end.armed = True
    with pytest.raises(KeyboardInterrupt):
        run(c.peer.send(wire))
        run(c.protocol.wait_for("lost"))
    assert len(run(c.protocol.wait_data(size))) == size
    if behind == "the end":
        assert run(c.peer.read()) == b""  # our close_notify
        assert run(c.protocol.wait_lost()) is None
        assert c.protocol.names == ["made", "data", "eof", "lost"]
    elif behind is BAD:
        assert isinstance(run(c.protocol.wait_lost()), ssl.SSLError)
        assert c.protocol.names == ["made", "data", "lost"]
    assert reports == []
