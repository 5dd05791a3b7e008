"""A protocol that raises, and what the exception handler is told.

An exception of data_received, eof_received or a buffer method ends its
connection with that exception; one of connection_made or connection_lost is
reported and ends nothing. KeyboardInterrupt and SystemExit leave the loop.
"""

from __future__ import annotations

import asyncio
import contextlib

import pytest
from net_helpers import (
    BufferedRecorder,
    Peer,
    Recorder,
    every_kind,
    link,
    tcp_socketpair,
    turns,
)


class Broken(Exception):
    """What the protocols here raise."""


def fail(protocol, *args):
    raise Broken(protocol.events[-1][0])


@every_kind
def test_data_received_raises(run, kind, reports):
    async def main():
        async with link(kind, Recorder(data=fail)) as c:
            await c.peer.send(b"data")
            exc = await c.protocol.wait_lost()
            assert isinstance(exc, Broken)
            assert c.protocol.names == ["made", "data", "lost"]
            (report,) = reports
            assert report["message"] == (
                "Fatal error: protocol.data_received() call failed."
            )
            assert report["exception"] is exc
            assert report["transport"] is c.transport
            assert report["protocol"] is c.protocol
            reports.clear()
            with contextlib.suppress(ConnectionResetError):
                assert await c.peer.recv() == b""

    run(main())


@pytest.mark.parametrize("make", [Recorder, BufferedRecorder])
@every_kind
def test_eof_received_raises(run, kind, reports, make):
    async def main():
        async with link(kind, make(eof=fail)) as c:
            c.peer.send_eof()
            exc = await c.protocol.wait_lost()
            assert isinstance(exc, Broken)
            assert c.protocol.names == ["made", "eof", "lost"]
            (report,) = reports
            assert report["message"] == (
                "Fatal error: protocol.eof_received() call failed."
            )
            assert report["exception"] is exc
            reports.clear()

    run(main())


@every_kind
def test_buffer_updated_raises(run, kind, reports):
    async def main():
        async with link(kind, BufferedRecorder(data=fail)) as c:
            await c.peer.send(b"data")
            exc = await c.protocol.wait_lost()
            assert isinstance(exc, Broken)
            assert c.protocol.names == ["made", "data", "lost"]
            (report,) = reports
            assert report["message"] == (
                "Fatal error: protocol.buffer_updated() call failed."
            )
            assert report["exception"] is exc
            assert report["transport"] is c.transport
            reports.clear()

    run(main())


@every_kind
def test_connection_made_raises(run, kind, reports):
    """It is reported; the connection stays and goes on reading."""

    async def main():
        async with link(kind, Recorder(made=fail)) as c:
            (report,) = reports
            assert isinstance(report["exception"], Broken)
            assert report["message"].startswith("Exception in callback")
            reports.clear()
            assert not c.transport.is_closing()
            await c.peer.send(b"data")
            assert await c.protocol.wait_data(4) == b"data"

    run(main())


@pytest.mark.parametrize("ending", ["close", "abort", "eof"])
@every_kind
def test_connection_lost_raises(run, kind, reports, ending):
    """It is reported; the descriptor is closed all the same."""

    async def main():
        async with link(kind, Recorder(lost=fail)) as c:
            sock = c.transport.get_extra_info("socket")
            if ending == "eof":
                c.peer.send_eof()
            else:
                getattr(c.transport, ending)()
            await c.protocol.wait_lost()
            await turns(2)
            (report,) = reports
            assert isinstance(report["exception"], Broken)
            reports.clear()
            assert sock.fileno() == -1
            assert await c.peer.recv() == b""

    run(main())


@pytest.mark.parametrize("name", ["data", "eof", "made", "lost"])
@pytest.mark.parametrize("error", [KeyboardInterrupt, SystemExit])
def test_exits_leave_the_loop(loop, name, error):
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
        # asyncio wakes who waits for the connection in the same turn or not.
        loop.run_until_complete(connect)
        if not protocol.lost:
            protocol.transport.abort()
            loop.run_until_complete(protocol.wait_lost())
        loop.run_until_complete(turns(2))
        sock = protocol.transport.get_extra_info("socket")
        assert sock.fileno() == -1


@every_kind
def test_other_base_exceptions_are_reported(run, kind, reports):
    class Odd(BaseException):
        pass

    def odd(protocol, data):
        raise Odd

    async def main():
        async with link(kind, Recorder(data=odd)) as c:
            await c.peer.send(b"data")
            assert isinstance(await c.protocol.wait_lost(), Odd)
            assert len(reports) == 1
            reports.clear()

    run(main())


@every_kind
def test_oserror_of_a_protocol_is_not_reported(run, kind):
    """asyncio takes every OSError on this path for the connection's end."""

    def bad(protocol, data):
        raise OSError(5, "of the protocol")

    async def main():
        async with link(kind, Recorder(data=bad)) as c:
            await c.peer.send(b"data")
            exc = await c.protocol.wait_lost()
            assert type(exc) is OSError and exc.errno == 5

    run(main())


@every_kind
def test_raising_after_close_in_the_same_callback(run, kind, reports):
    """close() came first, so connection_lost is a clean one."""

    def bad(protocol, data):
        protocol.transport.close()
        raise Broken

    async def main():
        async with link(kind, Recorder(data=bad)) as c:
            await c.peer.send(b"data")
            assert await c.protocol.wait_lost() is None
            assert isinstance(reports.pop()["exception"], Broken)
            assert reports == []

    run(main())


@every_kind
def test_one_broken_connection_leaves_the_others_alone(run, kind, reports):
    async def main():
        async with link(kind) as good, link(kind, Recorder(data=fail)) as bad:
            await bad.peer.send(b"x")
            await good.peer.send(b"y")
            assert isinstance(await bad.protocol.wait_lost(), Broken)
            assert await good.protocol.wait_data(1) == b"y"
            reports.clear()
            await good.peer.send(b"z")
            assert await good.protocol.wait_data(2) == b"yz"

    run(main())


@pytest.mark.parametrize("missing", ["data_received", "connection_lost"])
def test_a_protocol_without_a_method(run, loop, reports, missing):
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

    async def main():
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
        await turns(2)
        assert isinstance(reports.pop()["exception"], AttributeError)
        assert reports == []
        assert transport.is_closing()
        peer.close()

    run(main())


@every_kind
def test_the_report_names_transport_and_protocol_in_debug(
    run, loop, kind, reports, caplog
):
    loop.set_debug(True)

    async def main():
        async with link(kind, Recorder(data=fail)) as c:
            await c.peer.send(b"data")
            await c.protocol.wait_lost()
            (report,) = reports
            assert report["protocol"] is c.protocol
            reports.clear()

    with caplog.at_level("CRITICAL", "asyncio"):
        run(main())


@every_kind
def test_default_handler_logs_the_failure(run, loop, kind, caplog, request):
    """Through the default exception handler: one ERROR with traceback."""
    request.applymarker(pytest.mark.reports)
    loop.set_exception_handler(None)

    async def main():
        async with link(kind, Recorder(data=fail)) as c:
            await c.peer.send(b"data")
            await c.protocol.wait_lost()

    run(main())
    (record,) = [r for r in caplog.records if r.levelname == "ERROR"]
    text = record.getMessage()
    assert "Fatal error: protocol.data_received() call failed." in text
    assert "protocol: <net_helpers.Recorder" in text
    assert "transport: <" in text
    assert record.exc_info[0] is Broken


@every_kind
def test_cancelling_a_task_inside_a_callback(run, kind):
    """A protocol may cancel the task that waits for it."""

    async def main():
        waiting = asyncio.create_task(asyncio.Event().wait())
        protocol = Recorder(data=lambda p, d: waiting.cancel())
        async with link(kind, protocol) as c:
            await turns(1)
            await c.peer.send(b"data")
            with pytest.raises(asyncio.CancelledError):
                await waiting
            assert c.protocol.names == ["made", "data"]

    run(main())


@pytest.mark.parametrize("kind_of", [KeyboardInterrupt, SystemExit])
@every_kind
def test_fatal_error_with_what_leaves_loops(run, kind, reports, kind_of):
    async def main():
        async with link(kind) as c:
            exc = kind_of("told")
            c.transport._fatal_error(exc, message="so it goes")
            assert await c.protocol.wait_lost() is exc
            (report,) = reports
            assert report["message"] == "so it goes"
            assert report["exception"] is exc
            assert report["transport"] is c.transport
            reports.clear()

    run(main())
