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
    Peer,
    Recorder,
    every_kind,
    iterations,
    tcp_socketpair,
)


class Broken(Exception):
    """What the protocols here raise."""


def fail(protocol, *args):
    raise Broken(protocol.events[-1][0])


async def sees_fatal_error(c, reports, event, call):
    """Assert that the connection ended as its protocol's ``call`` raised."""
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


@pytest.mark.parametrize(
    "make, call",
    [(Recorder, "data_received"), (BufferedRecorder, "buffer_updated")],
)
@every_kind
async def test_taking_data_raises(transport_pair, reports, make, call):
    c = await transport_pair(make(data=fail))
    await c.peer.send(b"data")
    await sees_fatal_error(c, reports, "data", call)


@pytest.mark.parametrize("make", [Recorder, BufferedRecorder])
@every_kind
async def test_eof_received_raises(transport_pair, reports, make):
    c = await transport_pair(make(eof=fail))
    c.peer.send_eof()
    await sees_fatal_error(c, reports, "eof", "eof_received")


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


@pytest.mark.parametrize("ending", ["close", "abort", "eof"])
@every_kind
async def test_connection_lost_raises(transport_pair, reports, ending):
    """It is reported; the descriptor is closed all the same."""
    c = await transport_pair(Recorder(lost=fail))
    sock = c.transport.get_extra_info("socket")
    if ending == "eof":
        c.peer.send_eof()
    else:
        getattr(c.transport, ending)()
    await c.protocol.wait_lost()
    await iterations(2)
    (report,) = reports
    assert isinstance(report["exception"], Broken)
    reports.clear()
    assert sock.fileno() == -1
    assert await c.peer.recv() == b""


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
async def test_other_base_exceptions_are_reported(transport_pair, reports):
    class Odd(BaseException):
        pass

    def odd(protocol, data):
        raise Odd

    c = await transport_pair(Recorder(data=odd))
    await c.peer.send(b"data")
    assert isinstance(await c.protocol.wait_lost(), Odd)
    assert len(reports) == 1
    reports.clear()


@every_kind
async def test_oserror_of_a_protocol_is_not_reported(transport_pair):
    """asyncio takes every OSError on this path for the connection's end."""

    def bad(protocol, data):
        raise OSError(5, "of the protocol")

    c = await transport_pair(Recorder(data=bad))
    await c.peer.send(b"data")
    exc = await c.protocol.wait_lost()
    assert type(exc) is OSError and exc.errno == 5


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


@pytest.mark.parametrize("missing", ["data_received", "connection_lost"])
async def test_a_protocol_without_a_method(loop, reports, missing):
    """Duck-typed protocols work as long as the methods they need exist."""

    class Duck:
        def __init__(self):
            self.seen = []
            self.done = loop.create_future()

        def connection_made(self, transport):
            self.transport = transport
            self.seen.append("made")

        def data_received(self, data):
            self.seen.append(data)

        def eof_received(self):
            self.seen.append("eof")

        def connection_lost(self, exc):
            self.seen.append(exc)
            self.done.set_result(exc)

    near, far = tcp_socketpair()
    near.setblocking(False)
    peer = Peer(far)
    duck = Duck()
    cls = type("Partial", (Duck,), {missing: property()})
    duck.__class__ = cls
    transport, _ = await loop.create_connection(lambda: duck, sock=near)
    assert duck.seen == ["made"]
    await peer.send(b"data")
    peer.send_eof()
    if missing == "data_received":
        assert isinstance(await duck.done, AttributeError)
    assert await peer.recv() == b""
    await iterations(2)
    assert isinstance(reports.pop()["exception"], AttributeError)
    assert reports == []
    assert transport.is_closing()
    peer.close()


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


@every_kind
async def test_default_handler_logs_the_failure(
    transport_pair, loop, caplog, request
):
    """Through the default exception handler: one ERROR with traceback."""
    request.applymarker(pytest.mark.reports)
    loop.set_exception_handler(None)
    c = await transport_pair(Recorder(data=fail))
    await c.peer.send(b"data")
    await c.protocol.wait_lost()
    (record,) = [r for r in caplog.records if r.levelname == "ERROR"]
    text = record.getMessage()
    assert "Fatal error: protocol.data_received() call failed." in text
    assert "protocol: <net_helpers.Recorder" in text
    assert "transport: <" in text
    assert record.exc_info[0] is Broken


@pytest.mark.parametrize("what", ["pause_writing", "_fatal_error"])
def test_a_handler_that_ends_the_stream_and_raises(loop, what, request):
    """The loop, not run at the moment, is run by the handler itself."""
    request.applymarker(pytest.mark.reports)
    protocol = Recorder(pause=fail)
    near, far = tcp_socketpair()
    near.setblocking(False)
    connecting = loop.create_connection(lambda: protocol, sock=near)
    transport, _ = loop.run_until_complete(connecting)
    calls = []

    def handler(context):
        calls.append(context["message"])
        if len(calls) == 1:
            transport.abort()
            loop.run_until_complete(asyncio.sleep(0))
            raise Broken

    loop.call_exception_handler = handler
    with contextlib.suppress(Broken):
        if what == "pause_writing":
            transport.write(bytes(10_000_000))
        else:
            transport._fatal_error(ValueError())
    del loop.call_exception_handler
    transport.abort()
    loop.run_until_complete(protocol.wait_lost())
    assert calls
    far.close()


@pytest.mark.parametrize("kind_of", [KeyboardInterrupt, SystemExit])
@every_kind
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


async def connected_by_failing(loop):
    near, far = tcp_socketpair()
    sock = Failing(fileno=near.detach())
    sock.setblocking(False)
    transport, _ = await loop.create_connection(Recorder, sock=sock)
    return transport, sock, far


@pytest.mark.filterwarnings("ignore:unclosed:ResourceWarning")
async def test_exceptions_of_socket_close_are_reported(loop, reports):
    transport, sock, far = await connected_by_failing(loop)
    sock.error = Broken("close")
    transport.abort()
    await iterations(3)
    far.close()
    (report,) = reports
    assert isinstance(report["exception"], Broken)
    assert report["message"].startswith("Exception in callback ")
    assert isinstance(report["handle"], asyncio.Handle)
    reports.clear()


@pytest.mark.filterwarnings("ignore:unclosed:ResourceWarning")
@pytest.mark.parametrize("error", [KeyboardInterrupt, SystemExit])
def test_keyboard_interrupt_from_socket_close_propagates(loop, error):
    opened = connected_by_failing(loop)
    transport, sock, far = loop.run_until_complete(opened)
    sock.error = error()
    transport.abort()
    loop.call_later(5, loop.stop)
    with far, pytest.raises(error):
        loop.run_forever()
