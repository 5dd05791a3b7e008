"""A protocol that raises: what is reported, and what ends."""

import contextlib
import ssl

import pytest
from hosts import only_tcp
from net_helpers import BufferedRecorder, Recorder, for_tls, iterations
from tls_ends import (
    APPLICATION_DATA,
    contexts,
    every_side,
    every_version,
    meet,
)

pytestmark = pytest.mark.reports


def fail(*args):
    raise ZeroDivisionError("on purpose")


def resume_and_fail(protocol, *args):
    protocol.transport.pause_reading()
    protocol.transport.resume_reading()
    fail()


FATAL = "Fatal error on SSL protocol"
EOF = "Error calling eof_received()"


@every_side
@pytest.mark.parametrize(
    ("make", "method", "hook", "error", "message"),
    [
        (Recorder, "data", fail, ZeroDivisionError, FATAL),
        (Recorder, "data", resume_and_fail, ZeroDivisionError, FATAL),
        (BufferedRecorder, "data", fail, ZeroDivisionError, FATAL),
        (BufferedRecorder, "get_buffer", fail, ZeroDivisionError, FATAL),
        (BufferedRecorder, "get_buffer", lambda p, n: 5, TypeError, FATAL),
        (Recorder, "close_notify", fail, ZeroDivisionError, EOF),
        (Recorder, "ragged end", fail, ZeroDivisionError, EOF),
    ],
)
async def test_an_exception_ends_the_connection(
    settled_pair, side, make, method, hook, error, message, reports
):
    """Nothing is received behind it, though the protocol has asked for it."""
    c = await settled_pair(make(), side=side)
    above = c.transport._ssl_protocol
    below = above._transport
    event = "eof" if method in ("close_notify", "ragged end") else method
    c.protocol._hooks[event] = hook
    if method == "ragged end":
        c.peer.send_eof()
    elif method == "close_notify":
        await c.peer.close_notify()
    else:
        c.transport.pause_reading()
        # asyncio reports twice where the protocol's buffer is too small.
        await c.peer.write(bytes(200_000 if make is Recorder else 4))
        c.transport.resume_reading()
    exc = await c.protocol.wait_lost()
    assert isinstance(exc, error)
    (report,) = reports
    assert report["message"] == message
    assert report["exception"] is exc
    if event != "eof":
        assert report["transport"] is below
        assert report["protocol"] is above
    if event in ("data", "eof"):
        assert c.protocol.names == ["made", event, "lost"]
        assert c.protocol.count(event) == 1 + (event == "data")
    reports.clear()


@every_version
async def test_connection_made_of_a_client(run, version, reports):
    """create_connection raises it, and the connection is lost with it."""
    near = Recorder(made=fail)
    task, peer = await meet("client", near, *contexts("client", version))
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


@only_tcp
@pytest.mark.native_tls
async def test_exceptions_of_connection_made_are_reported(host, reports):
    """asyncio says that it was data_received's, or buffer_updated's."""
    for_server, for_client = for_tls()
    host.made.factory = lambda: Recorder(made=fail)
    await host.serve(**for_server)
    with contextlib.suppress(OSError):
        _, near = await host.connect(**for_client)
        await near.wait_lost()
    (protocol,) = host.made
    exc = await protocol.wait_lost()
    assert protocol.names == ["made", "lost"]
    (report,) = [r for r in reports if r["exception"] is exc]
    assert report["message"] == (
        "Fatal error: protocol.connection_made() call failed."
    )
    assert report["protocol"] is protocol.transport._ssl_protocol
    reports.clear()


@every_side
@pytest.mark.parametrize("method", ["pause", "resume"])
async def test_flow_control(tls_pair, side, method, reports):
    """It is reported, and the connection goes on."""
    c = await tls_pair(Recorder(**{method: fail}), side=side)
    await c.peer.read_exactly(c.fill())
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
@pytest.mark.leaves_tasks
@pytest.mark.native_tls  # asyncio loses what it has read with the data
@pytest.mark.parametrize("make", [Recorder, BufferedRecorder])
@pytest.mark.parametrize("kind", [KeyboardInterrupt, SystemExit])
@pytest.mark.parametrize("behind", ["the end", "a bad record"])
def test_exit_exceptions_leave_the_loop(
    run, settled_pair, side, make, kind, behind, reports
):
    """What was read with the data arrives all the same."""

    def leave(protocol, *args):
        protocol._hooks.clear()
        raise kind

    c = run(settled_pair(make(), side=side))
    c.protocol._hooks["data"] = leave
    wire = c.peer.seal(bytes(10_000))
    wire += c.peer.seal_close() if behind == "the end" else BAD
    with pytest.raises(kind):
        run(c.peer.send(wire))
        run(c.protocol.wait_for("lost"))
    exc = run(c.protocol.wait_lost())
    assert isinstance(exc, ssl.SSLError) == (behind == "a bad record")
    assert len(c.protocol.data) == 10_000
    assert c.protocol.count("eof") == (behind == "the end")
    assert reports == []
