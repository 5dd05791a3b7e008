"""create_server's keywords and the whole Server object.

wait_closed waits for the connections from 3.12.1 on; close_clients and
abort_clients came with 3.13.
"""

from __future__ import annotations

import asyncio
import asyncio.trsock
import contextlib
import errno
import gc
import socket
import warnings
import weakref

import pytest
from net_helpers import (
    PY312,
    PY312_1,
    PY313,
    Recorder,
    end,
    spin,
    turns,
)
from patience import PATIENCE


class Host:
    """Protocols of a server, and clients that visit it."""

    def __init__(self, loop, **hooks):
        self.loop = loop
        self.hooks = hooks
        self.protocols = []

    def factory(self):
        self.protocols.append(Recorder(**self.hooks))
        return self.protocols[-1]

    async def visit(self, address):
        """A client's (transport, protocol) and the server's protocol."""
        count = len(self.protocols)
        transport, protocol = await self.loop.create_connection(
            Recorder, *address[:2]
        )
        await spin(lambda: len(self.protocols) > count)
        await self.protocols[-1].wait_for("made")
        return protocol, self.protocols[-1]


@pytest.fixture
def host(loop):
    return Host(loop)


async def test_the_server_object(loop, host):
    server = await loop.create_server(host.factory, "127.0.0.1", 0)
    assert isinstance(server, asyncio.AbstractServer)
    assert isinstance(server, asyncio.Server)
    assert server.is_serving()
    assert server.get_loop() is loop
    assert type(server.sockets) is tuple
    (sock,) = server.sockets
    assert type(sock) is asyncio.trsock.TransportSocket
    assert sock.getsockname()[0] == "127.0.0.1"
    assert "sockets=" in repr(server)
    near, far = await host.visit(sock.getsockname())
    near.transport.write(b"hello")
    assert await far.wait_data(5) == b"hello"
    await end(near, far)
    server.close()
    assert not server.is_serving()
    assert server.sockets == ()
    await server.wait_closed()


async def test_close_may_be_called_twice(loop, host):
    server = await loop.create_server(host.factory, "127.0.0.1", 0)
    server.close()
    server.close()
    await server.wait_closed()
    await server.wait_closed()
    assert server._sockets is None


async def test_closing_the_server_refuses_new_connections(loop, host):
    server = await loop.create_server(host.factory, "127.0.0.1", 0)
    address = server.sockets[0].getsockname()
    near, far = await host.visit(address)
    server.close()
    with pytest.raises(ConnectionRefusedError):
        await loop.create_connection(Recorder, *address)
    near.transport.write(b"still open")
    assert await far.wait_data(10) == b"still open"
    await end(near, far)


@pytest.mark.parametrize("hosts", [None, ""], ids=["None", "empty"])
async def test_no_host_means_all_interfaces(loop, host, hosts):
    server = await loop.create_server(host.factory, hosts, 0)
    families = {sock.family for sock in server.sockets}
    assert socket.AF_INET in families
    port = [
        sock.getsockname()[1]
        for sock in server.sockets
        if sock.family == socket.AF_INET
    ][0]
    await end(*await host.visit(("127.0.0.1", port)))
    server.close()
    await server.wait_closed()


async def test_each_of_several_hosts_is_listened_on(loop, host):
    server = await loop.create_server(
        host.factory, ["127.0.0.1", "127.0.0.2", "::1"], 0
    )
    names = [sock.getsockname() for sock in server.sockets]
    hosts = sorted(name[0] for name in names)
    assert hosts == ["127.0.0.1", "127.0.0.2", "::1"]
    for name in names:
        await end(*await host.visit(name))
    server.close()
    await server.wait_closed()


async def test_family_chooses_among_the_addresses(loop, host):
    server = await loop.create_server(
        host.factory, "localhost", 0, family=socket.AF_INET
    )
    (sock,) = server.sockets
    assert sock.family == socket.AF_INET
    server.close()


async def test_hosts_are_resolved_through_the_loop(loop, host):
    calls = []

    async def getaddrinfo(name, port, **options):
        calls.append((name, port, options["flags"]))
        kind = (socket.AF_INET, socket.SOCK_STREAM, 6, "")
        return [(*kind, ("127.0.0.1", 0))]

    loop.getaddrinfo = getaddrinfo
    server = await loop.create_server(
        host.factory, "some.name", 8, flags=socket.AI_PASSIVE
    )
    assert calls == [("some.name", 8, socket.AI_PASSIVE)]
    server.close()


async def test_a_name_without_address(loop, host):
    async def getaddrinfo(name, port, **options):
        return []

    loop.getaddrinfo = getaddrinfo
    with pytest.raises(OSError, match="returned empty list"):
        await loop.create_server(host.factory, "nowhere", 8)


async def test_a_given_socket_is_listened_on(loop, host):
    sock = socket.socket()
    sock.bind(("127.0.0.1", 0))
    server = await loop.create_server(host.factory, sock=sock)
    assert sock.gettimeout() == 0
    assert server.sockets[0].fileno() == sock.fileno()
    await end(*await host.visit(sock.getsockname()))
    server.close()
    await server.wait_closed()
    assert sock.fileno() == -1


async def test_backlog_reaches_listen(loop, host):
    seen = []

    class Listening(socket.socket):
        def listen(self, backlog):
            seen.append(backlog)
            super().listen(backlog)

    sock = Listening()
    sock.bind(("127.0.0.1", 0))
    server = await loop.create_server(host.factory, sock=sock, backlog=7)
    assert seen == [7]
    await end(*await host.visit(sock.getsockname()))
    server.close()


@pytest.mark.parametrize("reuse", [True, False])
async def test_reuse_address(loop, host, reuse):
    server = await loop.create_server(
        host.factory, "127.0.0.1", 0, reuse_address=reuse
    )
    option = (socket.SOL_SOCKET, socket.SO_REUSEADDR)
    assert bool(server.sockets[0].getsockopt(*option)) is reuse
    server.close()


@pytest.mark.skipif(not hasattr(socket, "SO_REUSEPORT"), reason="no option")
async def test_reuse_port(loop, host):
    """Two servers share a port; without the option it is taken."""
    first = await loop.create_server(
        host.factory, "127.0.0.1", 0, reuse_port=True
    )
    address = first.sockets[0].getsockname()
    second = await loop.create_server(host.factory, *address, reuse_port=True)
    with pytest.raises(OSError) as caught:
        await loop.create_server(host.factory, *address)
    assert caught.value.errno == errno.EADDRINUSE
    await end(*await host.visit(address))
    first.close()
    await end(*await host.visit(address))
    second.close()


@pytest.mark.skipif(not PY313, reason="keep_alive came with 3.13")
@pytest.mark.parametrize("keep", [True, None])
async def test_keep_alive(loop, host, keep):
    server = await loop.create_server(
        host.factory, "127.0.0.1", 0, keep_alive=keep
    )
    option = (socket.SOL_SOCKET, socket.SO_KEEPALIVE)
    assert bool(server.sockets[0].getsockopt(*option)) is bool(keep)
    server.close()


async def test_an_address_in_use_is_refused(loop, host):
    with socket.create_server(("127.0.0.1", 0)) as taken:
        address = taken.getsockname()
        with pytest.raises(OSError) as caught:
            await loop.create_server(host.factory, *address)
    assert caught.value.errno == errno.EADDRINUSE
    assert str(address) in str(caught.value)
    assert "address already in use" in str(caught.value).lower()


@pytest.mark.parametrize(
    "options, error, text",
    [
        ({}, ValueError, "Neither host/port nor sock were specified"),
        (
            {"host": "h", "sock": object()},
            ValueError,
            "host/port and sock can not be specified at the same time",
        ),
        (
            {"port": 1, "sock": object()},
            ValueError,
            "host/port and sock can not be specified at the same time",
        ),
        ({"host": "h", "ssl": True}, TypeError, "ssl argument must be an SSL"),
        (
            {"host": "h", "ssl_handshake_timeout": 1},
            ValueError,
            "only meaningful with ssl",
        ),
        (
            {"host": "h", "ssl_shutdown_timeout": 1},
            ValueError,
            "only meaningful with ssl",
        ),
    ],
    ids=lambda x: "-".join(x) or "none" if isinstance(x, dict) else "",
)
async def test_options_that_do_not_go_together(
    loop, host, options, error, text
):
    with pytest.raises(error, match=text):
        await loop.create_server(host.factory, **options)


async def test_a_datagram_socket(loop, host):
    with socket.socket(type=socket.SOCK_DGRAM) as sock:
        with pytest.raises(ValueError, match="Stream Socket was exp"):
            await loop.create_server(host.factory, sock=sock)


async def test_start_serving_false(loop, host):
    server = await loop.create_server(
        host.factory, "127.0.0.1", 0, start_serving=False
    )
    assert not server.is_serving()
    address = server.sockets[0].getsockname()
    with pytest.raises(ConnectionRefusedError):
        await loop.create_connection(Recorder, *address)
    await server.start_serving()
    await server.start_serving()
    assert server.is_serving()
    await end(*await host.visit(address))
    server.close()


async def test_serve_forever_until_cancelled(loop, host):
    server = await loop.create_server(
        host.factory, "127.0.0.1", 0, start_serving=False
    )
    address = server.sockets[0].getsockname()
    task = loop.create_task(server.serve_forever())
    await turns(2)
    assert server.is_serving()
    await end(*await host.visit(address))
    with pytest.raises(RuntimeError, match="already being awaited"):
        await server.serve_forever()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert not server.is_serving()
    with pytest.raises(RuntimeError, match="is closed"):
        await server.serve_forever()
    with pytest.raises(ConnectionRefusedError):
        await loop.create_connection(Recorder, *address)


async def test_close_ends_serve_forever(loop, host):
    server = await loop.create_server(host.factory, "127.0.0.1", 0)
    task = loop.create_task(server.serve_forever())
    await turns(2)
    server.close()
    with pytest.raises(asyncio.CancelledError):
        await task


async def test_as_a_context_manager(loop, host):
    server = await loop.create_server(host.factory, "127.0.0.1", 0)
    async with server as entered:
        assert entered is server
        await end(*await host.visit(server.sockets[0].getsockname()))
    assert not server.is_serving()
    assert server.sockets == ()


async def test_wait_closed_and_open_connections(loop, host):
    """From 3.12.1 it waits for them; before, it returned at once."""
    server = await loop.create_server(host.factory, "127.0.0.1", 0)
    near, far = await host.visit(server.sockets[0].getsockname())
    server.close()
    task = loop.create_task(server.wait_closed())
    await turns(5)
    assert task.done() is not PY312_1
    near.transport.close()
    await far.wait_lost()
    await task
    await end(near, far)


@pytest.mark.skipif(not PY312, reason="3.11 does not wait")
async def test_wait_closed_before_close(loop, host):
    """It waits until the server is closed and the last client is gone."""
    if not PY312_1:
        pytest.skip("3.12.0 returned at once")

    server = await loop.create_server(host.factory, "127.0.0.1", 0)
    near, far = await host.visit(server.sockets[0].getsockname())
    task = loop.create_task(server.wait_closed())
    await end(near, far)
    await turns(3)
    assert not task.done()
    server.close()
    await task


@pytest.mark.skipif(not PY312_1, reason="only from 3.12.1 it waits")
async def test_wait_closed_is_woken_by_the_last_of_many(loop, host):
    server = await loop.create_server(host.factory, "127.0.0.1", 0)
    address = server.sockets[0].getsockname()
    pairs = [await host.visit(address) for _ in range(5)]
    server.close()
    waiters = [loop.create_task(server.wait_closed()) for _ in range(3)]
    for near, far in pairs[:-1]:
        await end(near, far)
    await turns(3)
    assert not any(task.done() for task in waiters)
    await end(*pairs[-1])
    await asyncio.gather(*waiters)


@pytest.mark.skipif(not PY313, reason="close_clients came with 3.13")
async def test_close_clients_closes_each_connection(loop, host):
    server = await loop.create_server(host.factory, "127.0.0.1", 0)
    address = server.sockets[0].getsockname()
    pairs = [await host.visit(address) for _ in range(3)]
    pairs[0][1].transport.write(b"last words")
    server.close()
    server.close_clients()
    await server.wait_closed()
    for near, far in pairs:
        assert far.exc is None
        assert await near.wait_lost() is None
    assert pairs[0][0].data == b"last words"


@pytest.mark.skipif(not PY313, reason="abort_clients came with 3.13")
async def test_abort_clients_aborts_each_connection(loop, host):
    server = await loop.create_server(host.factory, "127.0.0.1", 0)
    near, far = await host.visit(server.sockets[0].getsockname())
    near.transport.pause_reading()
    far.transport.write(bytes(16 * 1024 * 1024))
    assert far.transport.get_write_buffer_size()
    server.close()
    server.abort_clients()
    await server.wait_closed()
    assert far.exc is None
    await end(near, far)


@pytest.mark.skipif(not PY313, reason="close_clients came with 3.13")
async def test_ended_connections_are_no_clients(loop, host):
    server = await loop.create_server(host.factory, "127.0.0.1", 0)
    address = server.sockets[0].getsockname()
    for _ in range(3):
        await end(*await host.visit(address))
    near, far = await host.visit(address)
    assert len(server._clients) == 1
    server.close_clients()
    assert await far.wait_lost() is None
    await end(near, far)
    server.close()


async def test_a_dropped_server_goes_on(loop, host):
    """Its listeners belong to the loop, not to the object."""
    server = await loop.create_server(host.factory, "127.0.0.1", 0)
    address = server.sockets[0].getsockname()
    server_ref = weakref.ref(server)
    del server
    gc.collect()
    near, far = await host.visit(address)
    near.transport.write(b"served")
    assert await far.wait_data(6) == b"served"
    await end(near, far)
    server_ref().close()


def test_a_loop_closed_while_serving(loop_factory):
    """Nothing crashes; the socket is the collector's to close."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ResourceWarning)
        loop = loop_factory()
        host = Host(loop)
        server = loop.run_until_complete(
            loop.create_server(host.factory, "127.0.0.1", 0)
        )
        sock = server.sockets[0]
        client = socket.create_connection(sock.getsockname())
        loop.close()
        assert host.protocols == []
        client.close()
        del server, sock, loop
        host.loop = None
        gc.collect()


@pytest.mark.filterwarnings("ignore:unclosed:ResourceWarning")
@pytest.mark.filterwarnings("ignore:unclosed transport:ResourceWarning")
def test_who_waits_for_a_server_of_a_closed_loop(
    loop_factory, loop_kind, monkeypatch
):
    """Nobody can tell them that its last connection is gone."""
    if loop_kind == "asyncio" and PY313:
        pytest.skip("asyncio's transport fails in its __del__, unraisably")
    failed = []
    monkeypatch.setattr("sys.unraisablehook", failed.append)
    loop = loop_factory()
    host = Host(loop)
    server = loop.run_until_complete(
        loop.create_server(host.factory, "127.0.0.1", 0)
    )
    client = socket.create_connection(server.sockets[0].getsockname())
    loop.run_until_complete(spin(lambda: host.protocols))
    waiting = server.wait_closed()
    waiting.send(None).add_done_callback(print)
    server.close()
    loop.close()
    host.protocols.clear()
    gc.collect()
    client.close()
    waiting.close()
    assert failed == []


@pytest.mark.filterwarnings("ignore:unclosed:ResourceWarning")
@pytest.mark.reports
async def test_server_closed_in_a_factory(loop, loop_kind):
    """The connection being made is kept or dropped, and all is closed."""
    if loop_kind == "asyncio":
        pytest.skip("asyncio's Server fails in _attach or _detach, unraisably")
    servers = []

    def factory():
        servers[0].close()
        host.protocols.append(Recorder())
        return host.protocols[-1]

    host = Host(loop)
    servers.append(await loop.create_server(factory, "127.0.0.1", 0))
    address = servers[0].sockets[0].getsockname()
    near = socket.create_connection(address)
    near.settimeout(PATIENCE)
    await spin(lambda: host.protocols)
    await turns(5)
    if host.protocols[0].count("made"):
        await end(host.protocols[0])
    gc.collect()
    # A reset where asyncio drops the connection with its data.
    with contextlib.suppress(ConnectionResetError):
        assert near.recv(1) == b""
    near.close()
    with pytest.raises(ConnectionRefusedError):
        socket.create_connection(address)


async def test_server_closed_in_connection_made_of_one_of_many(loop):
    """Clients that were accepted in the same batch are all told."""
    servers = []
    host = Host(loop, made=lambda p: servers[0].close())
    servers.append(await loop.create_server(host.factory, "127.0.0.1", 0))
    address = servers[0].sockets[0].getsockname()
    socks = [socket.create_connection(address) for _ in range(5)]
    await spin(lambda: host.protocols and not servers[0].is_serving())
    await turns(10)
    for protocol in host.protocols:
        assert protocol.names == ["made"]
    for sock in socks:
        sock.close()
    for protocol in host.protocols:
        # Those the kernel had accepted alone were reset with it.
        await protocol.wait_lost()


async def test_two_servers_of_one_loop(loop):
    hosts = [Host(loop), Host(loop)]
    servers = [
        await loop.create_server(h.factory, "127.0.0.1", 0) for h in hosts
    ]
    for h, server in zip(hosts, servers, strict=True):
        await end(*await h.visit(server.sockets[0].getsockname()))
        assert len(h.protocols) == 1
        server.close()


async def test_protocol_class_as_factory(loop):
    made = loop.create_future()

    class Once(asyncio.Protocol):
        def connection_made(self, transport):
            made.set_result(transport)

    server = await loop.create_server(Once, "127.0.0.1", 0)
    sock = socket.create_connection(server.sockets[0].getsockname())
    transport = await made
    sock.close()
    await spin(transport.is_closing)
    await turns(3)
    server.close()


async def test_cancelled_while_resolving(loop, host):
    async def getaddrinfo(*args, **options):
        await asyncio.Event().wait()

    loop.getaddrinfo = getaddrinfo
    task = loop.create_task(loop.create_server(host.factory, "name", 1))
    await turns(2)
    task.cancel()
    with contextlib.suppress(asyncio.CancelledError):
        await task
    assert task.cancelled()


async def test_the_listener_cannot_be_watched_by_hand_unnoticed(loop, host):
    """remove_reader on the listener stops it on asyncio; here it may not,
    but the server must still close cleanly."""
    server = await loop.create_server(host.factory, "127.0.0.1", 0)
    sock = server.sockets[0]
    assert loop.remove_reader(sock.fileno()) in (True, False)
    server.close()
    await server.wait_closed()
