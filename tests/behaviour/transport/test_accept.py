"""Accepting: bursts, failing factories, exhausted descriptors.

Whatever goes wrong with one connection, the listener stays alive.
"""

from __future__ import annotations

import asyncio
import contextlib
import errno
import os
import socket

import pytest
from few_descriptors import few_descriptors
from net_helpers import Peer, Recorder, end, server_context, spin, turns
from patience import PATIENCE


@contextlib.asynccontextmanager
async def serving(loop, factory, **options):
    server = await loop.create_server(factory, "127.0.0.1", 0, **options)
    try:
        yield server.sockets[0].getsockname()
    finally:
        server.close()


@pytest.mark.parametrize("count", [1, 2, 40, 150])
async def test_each_client_of_a_burst_is_served_once(loop, count):
    """More clients than one event can tell of, each served once."""
    protocols = []

    def factory():
        protocols.append(Recorder())
        return protocols[-1]

    async with serving(loop, factory, backlog=200) as address:
        socks = [socket.create_connection(address) for _ in range(count)]
        for i, sock in enumerate(socks):
            sock.send(b"%04d" % i)
        await spin(lambda: len(protocols) == count)
        for protocol in protocols:
            await protocol.wait_data(4)
        names = {p.transport.get_extra_info("peername") for p in protocols}
        assert names == {sock.getsockname() for sock in socks}
        data = sorted(bytes(p.data) for p in protocols)
        assert data == [b"%04d" % i for i in range(count)]
        for sock in socks:
            sock.close()
        for protocol in protocols:
            assert await protocol.wait_lost() is None
        await turns(5)
        assert len(protocols) == count


async def test_accepted_descriptors_are_not_inherited_and_do_not_block(loop):
    protocol = Recorder()
    async with serving(loop, lambda: protocol) as address:
        sock = socket.create_connection(address)
        await protocol.wait_for("made")
        accepted = protocol.transport.get_extra_info("socket")
        assert accepted.gettimeout() == 0
        assert not os.get_inheritable(accepted.fileno())
        assert not os.get_blocking(accepted.fileno())
        sock.close()
        await protocol.wait_lost()


async def test_client_gone_before_accept(loop):
    """It is accepted all the same: made, then lost."""
    protocols = []

    def factory():
        protocols.append(Recorder())
        return protocols[-1]

    async with serving(loop, factory) as address:
        for reset in (False, True):
            sock = socket.create_connection(address)
            name = sock.getsockname()
            if reset:
                Peer(sock).reset()
            else:
                sock.close()
            await spin(lambda: protocols)
            protocol = protocols.pop()
            exc = await protocol.wait_lost()
            if reset:
                assert isinstance(exc, ConnectionResetError)
            else:
                assert exc is None
            info = protocol.transport.get_extra_info
            if not reset:
                assert info("peername") == name


@pytest.mark.filterwarnings("ignore:unclosed:ResourceWarning")
@pytest.mark.parametrize("debug", [False, True])
@pytest.mark.parametrize("error", [ZeroDivisionError, OSError])
async def test_a_raising_factory(loop, loop_kind, reports, error, debug):
    """Its client is disconnected, the next one is served.

    asyncio reports it in debug mode only, and before 3.15 leaves the
    accepted socket to the collector.
    """
    loop.set_debug(debug)
    protocols = []
    bad = [True]

    def factory():
        if bad:
            bad.pop()
            raise error("in the factory")
        protocols.append(Recorder())
        return protocols[-1]

    async with serving(loop, factory) as address:
        first = socket.create_connection(address)
        await spin(lambda: not bad)
        if debug:
            await spin(lambda: reports)
        await turns(5)
        message = "Error on transport creation for incoming connection"
        for report in reports:
            assert isinstance(report["exception"], error)
            assert report["message"] == message
        assert len(reports) <= 1
        reports.clear()
        second = socket.create_connection(address)
        second.send(b"data")
        await spin(lambda: protocols)
        assert await protocols[0].wait_data(4) == b"data"
        if loop_kind == "fastloop":
            first.settimeout(PATIENCE)
            assert first.recv(1) == b""
        first.close()
        await end(*protocols)
        second.close()
        assert reports == []


@pytest.mark.filterwarnings("ignore:unclosed:ResourceWarning")
@pytest.mark.parametrize("what", [None, 5, "text"])
async def test_a_factory_that_makes_no_protocol(loop, reports, what):
    made = []

    def factory():
        made.append(1)
        return what

    async with serving(loop, factory) as address:
        sock = socket.create_connection(address)
        await spin(lambda: made)
        await turns(5)
        sock.close()
        await turns(10)
        made.clear()
        with socket.create_connection(address):
            await spin(lambda: made)
        await turns(10)
        errors = {type(report["exception"]) for report in reports}
        assert errors <= {AttributeError}
        # Tracebacks keep what asyncio leaves to the collector.
        reports.clear()


@pytest.mark.parametrize("ending", ["close", "abort"])
async def test_ending_in_connection_made(loop, ending):
    """A server that turns clients away at once; a hundred times."""
    protocols = []

    def factory():
        protocols.append(
            Recorder(made=lambda p: getattr(p.transport, ending)())
        )
        return protocols[-1]

    async with serving(loop, factory) as address:
        socks = [socket.create_connection(address) for _ in range(100)]
        await spin(lambda: len(protocols) == 100)
        for protocol in protocols:
            assert await protocol.wait_lost() is None
            assert protocol.names == ["made", "lost"]
        for sock in socks:
            assert sock.recv(1) == b""
            sock.close()


async def test_exhausted_descriptors(loop, reports, monkeypatch):
    """Reported, retried after a pause, and the listener lives."""
    import asyncio.constants

    monkeypatch.setattr(asyncio.constants, "ACCEPT_RETRY_DELAY", 0.05)
    protocols = []

    def factory():
        protocols.append(Recorder())
        return protocols[-1]

    async with serving(loop, factory) as address:
        socks = [socket.socket() for _ in range(6)]
        started = loop.time()
        with few_descriptors(2):
            for sock in socks:
                sock.connect(address)
            await spin(lambda: reports)
            # It pauses: the loop must not report again and again.
            before = len(reports)
            await turns(50)
            if loop.time() - started < 0.05:
                assert len(reports) == before
            assert len(protocols) <= 2
        await spin(lambda: len(protocols) == 6)
        for report in reports:
            assert report["message"] == (
                "socket.accept() out of system resource"
            )
            assert report["exception"].errno == errno.EMFILE
            assert report["socket"].getsockname() == address
        for sock in socks:
            sock.send(b"served")
        for protocol in protocols:
            assert await protocol.wait_data(6) == b"served"
        for sock in socks:
            sock.close()
        for protocol in protocols:
            assert await protocol.wait_lost() is None


async def test_server_closed_while_it_pauses(loop, reports, monkeypatch):
    """The retry that comes due finds no listener and does nothing."""
    import asyncio.constants

    monkeypatch.setattr(asyncio.constants, "ACCEPT_RETRY_DELAY", 0.02)
    server = await loop.create_server(Recorder, "127.0.0.1", 0)
    address = server.sockets[0].getsockname()
    with socket.socket() as sock:
        with few_descriptors(0):
            sock.connect(address)
            await spin(lambda: reports)
            server.close()
        reused, other = socket.socketpair()
        alarm = loop.create_future()
        loop.call_later(0.06, alarm.set_result, None)
        await alarm
        reused.close()
        other.close()
    # asyncio may complain of the retry; nothing else may have been said.
    assert reports[0]["message"] == "socket.accept() out of system resource"


async def test_descriptor_numbers_are_used_again_at_once(loop):
    """A connection may get the number that another had a turn before."""
    protocols = []

    def factory():
        protocols.append(Recorder())
        return protocols[-1]

    async with serving(loop, factory) as address:
        numbers = set()
        for i in range(50):
            sock = socket.create_connection(address)
            sock.send(b"%02d" % i)
            await spin(lambda: protocols)
            protocol = protocols.pop()
            assert await protocol.wait_data(2) == b"%02d" % i
            info = protocol.transport.get_extra_info("socket")
            numbers.add(info.fileno())
            sock.close()
            assert await protocol.wait_lost() is None
        assert len(numbers) < 10


async def test_accept_goes_on_while_callbacks_flood(loop):
    """A busy ready queue does not keep new clients out."""
    protocols = []
    flooding = [True]

    def factory():
        protocols.append(Recorder())
        return protocols[-1]

    def flood():
        if flooding:
            loop.call_soon(flood)

    async with serving(loop, factory) as address:
        loop.call_soon(flood)
        sock = socket.create_connection(address)
        sock.send(b"data")
        await spin(lambda: protocols)
        assert await protocols[0].wait_data(4) == b"data"
        flooding.clear()
        sock.close()
        await protocols[0].wait_lost()


async def test_tasks_for_each_connection(loop):
    """The everyday server: a task a connection, cancelled at its end."""
    ended = []

    class Handler(asyncio.Protocol):
        def connection_made(self, transport):
            self.task = loop.create_task(self.work(transport))

        async def work(self, transport):
            try:
                transport.write(b"working")
                await asyncio.Event().wait()
            finally:
                ended.append(1)

        def connection_lost(self, exc):
            self.task.cancel()

    async with serving(loop, Handler) as address:
        for i in range(10):
            sock = socket.create_connection(address)
            peer = Peer(sock)
            assert await peer.recv_exactly(7) == b"working"
            peer.close()
            await spin(lambda i=i: len(ended) == i + 1)


class Wrapper:
    """An object around a socket, as gunicorn's are."""

    def __init__(self, sock):
        self.sock = sock

    def __getattr__(self, name):
        return getattr(self.sock, name)


class Counter(Wrapper):
    """One that accepts itself."""

    accepts = 0

    def accept(self):
        self.accepts += 1
        return self.sock.accept()


@pytest.mark.parametrize("kind", [Wrapper, Counter])
async def test_an_object_around_a_socket_is_served(loop, loop_kind, kind):
    """Its own accept() is called, and where it has none the system's."""
    protocol = Recorder()
    if loop_kind == "fastloop":
        loop.enable_metrics()
    listener = kind(socket.create_server(("127.0.0.1", 0)))
    server = await loop.create_server(lambda: protocol, sock=listener)
    with socket.create_connection(listener.getsockname()) as sock:
        sock.send(b"x")
        await protocol.wait_data(1)
        server.close()
        assert listener.fileno() == -1
        protocol.transport.abort()
        assert await protocol.wait_lost() is None
    if kind is Counter:
        assert listener.accepts
    elif loop_kind == "fastloop":
        assert loop.metrics().connections_accepted == 1


@pytest.mark.filterwarnings("ignore:unclosed:ResourceWarning")
@pytest.mark.parametrize("debug", [False, True])
async def test_a_raising_factory_of_a_tls_server(
    loop, loop_kind, reports, debug
):
    """It is reported once; asyncio reports it in debug mode only."""
    loop.set_debug(debug)
    called = []

    def factory():
        called.append(1)
        raise ZeroDivisionError("in the factory")

    async with serving(loop, factory, ssl=server_context()) as address:
        sock = socket.create_connection(address)
        sock.setblocking(False)
        await spin(lambda: called)
        if loop_kind == "fastloop":
            assert await loop.sock_recv(sock, 1) == b""
        sock.close()
    await turns(3)
    assert len(reports) == (debug or loop_kind == "fastloop")
    for report in reports:
        assert isinstance(report["exception"], ZeroDivisionError)
        assert report["message"] == (
            "Error on transport creation for incoming connection"
        )
    reports.clear()
