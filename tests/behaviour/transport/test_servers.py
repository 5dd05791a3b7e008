"""Accepting: bursts, failing factories, exhausted descriptors.

Whatever goes wrong with one connection, the listener stays alive.
"""

from __future__ import annotations

import asyncio
import asyncio.constants
import errno
import socket

import pytest
from few_descriptors import few_descriptors
from hosts import only_tcp
from net_helpers import end, iterations, server_context, spin
from patience import PATIENCE


@pytest.mark.parametrize("count", [1, 2, 40, 150])
async def test_each_client_of_a_burst_is_served_once(host, count):
    """More clients than one event reports, each served once."""
    await host.serve(backlog=200)
    socks = [host.plain() for _ in range(count)]
    for i, sock in enumerate(socks):
        sock.send(b"%04d" % i)
    await spin(lambda: len(host.made) == count)
    for protocol in host.made:
        await protocol.wait_data(4)
    names = {p.transport.get_extra_info("peername") for p in host.made}
    assert names == {sock.getsockname() for sock in socks}
    data = sorted(bytes(p.data) for p in host.made)
    assert data == [b"%04d" % i for i in range(count)]
    for sock in socks:
        sock.close()
    for protocol in host.made:
        assert await protocol.wait_lost() is None
    await iterations(5)
    assert len(host.made) == count


@only_tcp
async def test_exhausted_descriptors(loop, host, reports, monkeypatch):
    """Reported, retried after a pause, and the listener lives."""
    monkeypatch.setattr(asyncio.constants, "ACCEPT_RETRY_DELAY", 0.05)
    await host.serve()
    socks = [socket.socket() for _ in range(6)]
    started = loop.time()
    with few_descriptors(2):
        for sock in socks:
            sock.connect(host.address)
        await spin(lambda: reports)
        # It pauses: the loop must not report again and again.
        before = len(reports)
        await iterations(50)
        if loop.time() - started < 0.05:
            assert len(reports) == before
        assert len(host.made) <= 2
    await spin(lambda: len(host.made) == 6)
    for report in reports:
        assert report["message"] == ("socket.accept() out of system resource")
        assert report["exception"].errno == errno.EMFILE
        assert report["socket"].getsockname() == host.address
    for sock in socks:
        sock.send(b"served")
    for protocol in host.made:
        assert await protocol.wait_data(6) == b"served"
    for sock in socks:
        sock.close()
    for protocol in host.made:
        assert await protocol.wait_lost() is None


@only_tcp
async def test_server_closed_while_it_pauses(loop, host, reports, monkeypatch):
    """The retry that comes due finds no listener and does nothing."""
    monkeypatch.setattr(asyncio.constants, "ACCEPT_RETRY_DELAY", 0.02)
    server = await host.serve()
    with socket.socket() as sock:
        with few_descriptors(0):
            sock.connect(host.address)
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
async def test_an_object_around_a_socket_is_served(
    loop, host, loop_kind, kind
):
    """Its own accept() is called, and where it has none the system's."""
    if loop_kind == "fastloop":
        loop.enable_metrics()
    listener = kind(host.bound())
    await host.serve(sock=listener)
    near, far = await host.visit()
    host.close()
    assert listener.fileno() == -1
    await end(near, far)
    if kind is Counter:
        assert listener.accepts
    elif loop_kind == "fastloop":
        assert loop.metrics().connections_accepted == 1


def raises(error):
    def factory():
        raise error("in the factory")

    return factory


FACTORIES = [  # TLS, the factory, debug mode, what is reported
    (tls, raises(error), debug, error)
    for tls in (False, True)
    for error in (ZeroDivisionError, OSError)
    for debug in (False, True)
] + [
    (False, lambda: None, True, AttributeError),
    (False, lambda: "text", True, AttributeError),
]


@only_tcp
@pytest.mark.filterwarnings("ignore:unclosed:ResourceWarning")
@pytest.mark.parametrize(("tls", "make", "debug", "error"), FACTORIES)
async def test_a_bad_factory(
    loop, host, loop_kind, reports, tls, make, debug, error
):
    """Its client is disconnected, the next one is served.

    asyncio reports it in debug mode only, and before 3.15 leaves the
    accepted socket to the GC.
    """
    loop.set_debug(debug)
    bad = [make]
    await host.serve(
        lambda: bad.pop()() if bad else host.made(),
        ssl=server_context() if tls else None,
    )
    first = host.plain()
    await spin(lambda: not bad)
    await iterations(5)
    if loop_kind == "fastloop":
        first.settimeout(PATIENCE)
        assert first.recv(1) == b""
    first.close()
    assert len(reports) == (debug or loop_kind == "fastloop")
    for report in reports:
        assert type(report["exception"]) is error
        if error is not AttributeError:
            assert report["message"] == (
                "Error on transport creation for incoming connection"
            )
    reports.clear()  # tracebacks keep what asyncio leaves to the GC
    if not tls:
        second = host.plain()
        second.send(b"data")
        await spin(lambda: host.made)
        assert await host.made[0].wait_data(4) == b"data"
        await end(*host.made)
        second.close()
    assert reports == []
