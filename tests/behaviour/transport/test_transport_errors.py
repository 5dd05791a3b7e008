"""A protocol that raises, and what the exception handler gets.

An exception of data_received, eof_received or a buffer method ends its
connection with that exception; one of connection_made or connection_lost is
reported and ends nothing. KeyboardInterrupt and SystemExit leave the loop.
"""

from __future__ import annotations

import asyncio
import contextlib
import socket
import sys

import pytest
from net_helpers import (
    BufferedRecorder,
    Recorder,
    every_kind,
    iterations,
    tcp_socketpair,
)


class Broken(Exception):
    """What the protocols here raise."""


def fail(protocol, *args):
    raise Broken(protocol.events[-1][0])


@pytest.mark.parametrize(
    ("make", "event", "call"),
    [
        (Recorder, "data", "data_received"),
        (BufferedRecorder, "data", "buffer_updated"),
        (Recorder, "eof", "eof_received"),
        (BufferedRecorder, "eof", "eof_received"),
    ],
)
@every_kind
async def test_fatal_errors(transport_pair, reports, make, event, call):
    c = await transport_pair(make(**{event: fail}))
    if event == "data":
        await c.peer.send(b"data")
    else:
        c.peer.send_eof()
    exc = await c.protocol.wait_lost()
    assert isinstance(exc, Broken)
    assert c.protocol.names == ["made", event, "lost"]
    (report,) = reports
    assert report["message"] == f"Fatal error: protocol.{call}() call failed."
    assert report["exception"] is exc
    assert report["transport"] is c.transport
    assert report["protocol"] is c.protocol
    reports.clear()
    with contextlib.suppress(ConnectionResetError):
        assert await c.peer.recv() == b""


@every_kind
async def test_connection_made_raises(transport_pair, reports):
    """It is reported; the connection stays and goes on reading."""
    c = await transport_pair(Recorder(made=fail))
    (report,) = reports
    assert isinstance(report["exception"], Broken)
    assert report["message"].startswith("Exception in callback")
    reports.clear()
    assert not c.transport.is_closing()
    await c.peer.send(b"data")
    assert await c.protocol.wait_data(4) == b"data"


@pytest.mark.parametrize("kind", ["stream", "datagrams", "read", "write"])
async def test_connection_lost_raises(loop, reports, kind):
    """It is reported; the descriptor is closed all the same."""
    protocol = Recorder(lost=fail)
    near, far = socket.socketpair(
        type=socket.SOCK_DGRAM if kind == "datagrams" else socket.SOCK_STREAM
    )
    near.setblocking(False)
    connect = {
        "stream": lambda make: loop.create_connection(make, sock=near),
        "datagrams": lambda make: loop.create_datagram_endpoint(
            make, sock=near
        ),
        "read": lambda make: loop.connect_read_pipe(make, near),
        "write": lambda make: loop.connect_write_pipe(make, near),
    }[kind]
    with far:
        transport, _ = await connect(lambda: protocol)
        transport.close()
        await protocol.wait_lost()
        await iterations(2)
    (report,) = reports
    assert isinstance(report["exception"], Broken)
    reports.clear()
    assert near.fileno() == -1


@pytest.mark.parametrize("name", ["data", "eof", "made", "lost"])
@pytest.mark.parametrize("error", [KeyboardInterrupt, SystemExit])
def test_exit_exceptions_leave_the_loop(loop, name, error):
    """run_forever ends with the exception and may be called again."""

    def leave(protocol, *args):
        if protocol.count(name) == 1:
            raise error(name)

    near, far = tcp_socketpair()
    near.setblocking(False)
    protocol = Recorder(**{name: leave})
    connect = loop.create_task(
        loop.create_connection(lambda: protocol, sock=near)
    )
    far.send(b"data")
    far.shutdown(1)
    with far:
        with pytest.raises(error):
            loop.run_forever()
        # asyncio wakes tasks that wait for it in this iteration or later.
        loop.run_until_complete(connect)
        if not protocol.lost:
            protocol.transport.abort()
            loop.run_until_complete(protocol.wait_lost())
        loop.run_until_complete(iterations(2))
        sock = protocol.transport.get_extra_info("socket")
        assert sock.fileno() == -1


@every_kind
async def test_raising_after_close_in_the_same_callback(
    transport_pair, reports
):
    """close() was first, so connection_lost is a clean one."""

    def bad(protocol, data):
        protocol.transport.close()
        raise Broken

    c = await transport_pair(Recorder(data=bad))
    await c.peer.send(b"data")
    assert await c.protocol.wait_lost() is None
    assert isinstance(reports.pop()["exception"], Broken)
    assert reports == []


@pytest.mark.parametrize("event", ["made", "data", "eof", "lost", "pause"])
async def test_the_handler_runs_as_in_an_except_block(loop, event):
    handled = []

    def handler(lo, context):
        handled.append(sys.exc_info()[1] is context["exception"])

    loop.set_exception_handler(handler)
    a, b = tcp_socketpair()
    with b:
        protocol = Recorder(**{event: fail})
        await loop.create_connection(lambda: protocol, sock=a)
        b.send(b"data")
        await iterations(5)
        if event == "pause":
            protocol.transport.write(bytes(1 << 24))
        b.close()
        await protocol.wait_lost()
    assert handled == [True]


@pytest.mark.parametrize("kind", ["unix"])
@pytest.mark.parametrize("kind_of", [KeyboardInterrupt, SystemExit])
async def test_fatal_error_with_exceptions_that_leave_the_loop(
    transport_pair, reports, kind_of
):
    c = await transport_pair()
    exc = kind_of("told")
    c.transport._fatal_error(exc, message="so it goes")
    assert await c.protocol.wait_lost() is exc
    (report,) = reports
    assert report["message"] == "so it goes"
    assert report["exception"] is exc
    assert report["transport"] is c.transport
    reports.clear()


class Failing(socket.socket):
    """Its close() raises once, when all is closed."""

    error: BaseException | None = None

    def close(self):
        super().close()
        error, self.error = self.error, None
        if error is not None:
            raise error


@pytest.mark.filterwarnings("ignore:unclosed:ResourceWarning")
@pytest.mark.parametrize("error", [Broken, KeyboardInterrupt])
def test_exceptions_of_socket_close(loop, reports, error):
    """They are reported, or leave the loop."""
    near, far = tcp_socketpair()
    sock = Failing(fileno=near.detach())
    sock.setblocking(False)
    transport, _ = loop.run_until_complete(
        loop.create_connection(Recorder, sock=sock)
    )
    sock.error = error("close")
    transport.abort()
    loop.call_later(0.01, loop.stop)
    with far, contextlib.ExitStack() as stack:
        if error is KeyboardInterrupt:
            stack.enter_context(pytest.raises(error))
        loop.run_forever()
    if error is Broken:
        (report,) = reports
        assert isinstance(report["exception"], Broken)
        assert report["message"].startswith("Exception in callback ")
        assert isinstance(report["handle"], asyncio.Handle)
        reports.clear()
