"""Servers: failing factories, exhausted descriptors, odd ends.

Whatever goes wrong with one connection, the listener stays alive.
"""

import asyncio
import asyncio.constants
import contextlib
import errno
import gc
import socket
from asyncio.selector_events import BaseSelectorEventLoop

import pytest
from few_descriptors import few_descriptors
from hosts import CLOSED, Host, only_tcp
from net_helpers import (
    PY313,
    end,
    iterations,
    listening_socket,
    moved_to,
    server_context,
    spin,
)
from patience import PATIENCE


@only_tcp
async def test_accepting_pauses_while_no_descriptor_is_free(
    loop, host, reports, monkeypatch
):
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
async def test_a_server_may_be_closed_while_it_pauses(
    loop, host, reports, monkeypatch
):
    """The retry that comes due finds no listener and does nothing."""
    monkeypatch.setattr(asyncio.constants, "ACCEPT_RETRY_DELAY", 0.02)
    server = await host.serve()
    with socket.socket() as sock:
        with few_descriptors(0):
            sock.connect(host.address)
            await spin(lambda: reports)
            server.close()
        reused, other = socket.socketpair()
        await asyncio.sleep(0.06)
        reused.close()
        other.close()
    # asyncio may complain of the retry; nothing else may have been said.
    assert reports[0]["message"] == "socket.accept() out of system resource"


class Wrapper:
    """An object around a socket, as gunicorn's are, that accepts itself."""

    accepts = 0

    def __init__(self, sock):
        self.sock = sock

    def __getattr__(self, name):
        return getattr(self.sock, name)

    def accept(self):
        self.accepts += 1
        return self.sock.accept()


async def test_an_object_around_a_socket_is_served(host):
    """By its own accept()."""
    listener = Wrapper(host.bound())
    await host.serve(sock=listener)
    near, far = await host.visit()
    host.close()
    assert listener.fileno() == -1
    await end(near, far)
    assert listener.accepts


@only_tcp
@pytest.mark.parametrize(("more", "named"), [((5,), {}), ((), {"later": 5})])
async def test_asyncios_method_gets_what_a_later_cpythons_servers_pass(
    loop, host, monkeypatch, more, named
):
    got, original = [], BaseSelectorEventLoop._start_serving

    def serve(self, *args, later=None, **options):
        got.append((args[7:], later))
        original(self, *args[:7], **options)

    monkeypatch.setattr(BaseSelectorEventLoop, "_start_serving", serve)
    start = loop._start_serving
    loop._start_serving = lambda *args, **options: start(
        *args, *more, **options, **named
    )
    await host.serve()
    await end(*await host.visit())
    assert got == [(more, named.get("later"))]


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
async def test_a_factory_that_fails_loses_only_its_client(
    loop, host, loop_kind, reports, tls, make, debug, error
):
    """Its client is disconnected, the next one is served.

    asyncio reports it in debug mode only, and leaves the accepted socket to
    the GC, up to the releases that have gh-155934's fix.
    """
    loop.set_debug(debug)
    if loop_kind == "fastloop":
        loop.enable_metrics()
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
        if not tls:
            found = loop.metrics()
            assert found.connections_accepted == found.connections_refused == 1
            assert found.connections_made == found.connections_open == 0
            assert found.connections_lost == 0
    first.close()
    silent = not debug and loop_kind == "asyncio"
    assert len(reports) == 1 or (silent and not reports)
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


@only_tcp
@pytest.mark.parametrize("in_the_same_batch", [False, True])
async def test_the_next_file_of_its_fd_keeps_its_connections(
    loop, host, reports, in_the_same_batch
):
    """The old file's event is queued already, or a duplicate is open."""
    listener = host.bound()
    server = await host.serve(sock=listener)
    old, fd = listener.dup(), listener.fileno()
    near, far = socket.socketpair()
    new = []

    def reuse():
        loop.remove_reader(near)
        listener.close()
        new.append(moved_to(fd, listening_socket()))
        if in_the_same_batch:
            old.close()

    loop.add_reader(near, reuse)
    far.send(b"x")
    if not in_the_same_batch:
        await spin(lambda: new)
    # Its event follows that of `near`.
    with host.plain():
        await spin(lambda: reports)
    host.address = new[0].getsockname()
    with near, far, old, new[0], host.plain() as client:
        await asyncio.sleep(0.01)
        assert host.made == []
        peer, address = new[0].accept()
        with peer:
            assert address == client.getsockname()
    assert {info["exception"].errno for info in reports} == {errno.EBADF}
    loop.remove_reader(fd)
    with pytest.raises(ValueError, match="-1"):
        server.close()


@pytest.mark.filterwarnings("ignore:unclosed:ResourceWarning")
@pytest.mark.parametrize("served", [False, True])
def test_a_closed_loop_leaves_no_dropped_server(
    loop_factory, served, no_automatic_gc
):
    """Its address is free for the next loop, without a garbage collection."""

    async def main(host):
        await host.serve()
        if served:
            near, far = await host.visit()
            await end(near, far)
            host.made.clear()

    host = Host(None)
    for _ in range(2):
        host.loop = loop_factory()
        host.loop.run_until_complete(main(host))
        host.loop.close()


@pytest.mark.filterwarnings("ignore:unclosed:ResourceWarning")
@pytest.mark.filterwarnings("ignore:unclosed transport:ResourceWarning")
def test_a_server_outlives_its_loop_without_an_error(
    loop_factory, loop_kind, monkeypatch
):
    """Its connection ends after it, so wait_closed() never ends."""
    if loop_kind == "asyncio" and PY313:
        pytest.skip("asyncio's transport fails in its __del__, unraisably")
    failed = []
    monkeypatch.setattr("sys.unraisablehook", failed.append)
    loop = loop_factory()
    host = Host(loop)
    server = loop.run_until_complete(host.serve())
    client = host.plain()
    loop.run_until_complete(spin(lambda: host.made))
    waiting = server.wait_closed()
    waiting.send(None).add_done_callback(print)
    server.close()
    loop.close()
    host.made.clear()
    gc.collect()
    client.close()
    waiting.close()
    assert failed == []


@pytest.mark.filterwarnings("ignore:unclosed:ResourceWarning")
@pytest.mark.reports
async def test_a_factory_may_close_its_server(host, loop_kind):
    """The connection being made is served or dropped, and all is closed."""
    if loop_kind == "asyncio":
        pytest.skip("asyncio's Server fails in _attach or _detach, unraisably")

    def factory():
        host.close()
        return host.made()

    await host.serve(factory)
    with host.plain() as near:
        near.settimeout(PATIENCE)
        await spin(lambda: host.made)
        await iterations(5)
        if host.made[0].count("made"):
            await end(host.made[0])
        gc.collect()
        # A reset where asyncio drops the connection with its data.
        with contextlib.suppress(ConnectionResetError):
            assert near.recv(1) == b""
    with pytest.raises(CLOSED):
        host.plain()
