"""create_server's keywords and the whole Server object, at any address.

wait_closed waits for the connections from 3.12.1 on; close_clients and
abort_clients is new in 3.13.
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
from hosts import CLOSED, Host, answering, info, only_tcp
from net_helpers import PY312_1, PY313, Recorder, end, iterations, spin
from patience import PATIENCE


async def test_the_server_object(loop, host):
    server = await host.serve()
    assert isinstance(server, asyncio.AbstractServer)
    assert isinstance(server, asyncio.Server)
    assert server.is_serving()
    assert server.get_loop() is loop
    assert type(server.sockets) is tuple
    (sock,) = server.sockets
    assert type(sock) is asyncio.trsock.TransportSocket
    assert sock.getsockname() == host.address
    assert "sockets=" in repr(server)
    near, far = await host.visit()
    near.transport.write(b"hello")
    assert await far.wait_data(5) == b"hello"
    await end(near, far)
    server.close()
    assert not server.is_serving()
    assert server.sockets == ()
    await server.wait_closed()


async def test_close_may_be_called_twice(loop, host):
    server = await host.serve()
    server.close()
    server.close()
    await server.wait_closed()
    await server.wait_closed()
    assert server._sockets is None


async def test_closing_the_server_refuses_new_connections(loop, host):
    server = await host.serve()
    near, far = await host.visit()
    server.close()
    with pytest.raises(CLOSED):
        await host.connect()
    near.transport.write(b"still open")
    assert await far.wait_data(10) == b"still open"
    await end(near, far)


@only_tcp
@pytest.mark.parametrize("name", [None, ""], ids=["None", "empty"])
async def test_no_host_means_all_interfaces(loop, host, name):
    server = await loop.create_server(host.made, name, 0)
    (host.address,) = [
        ("127.0.0.1", sock.getsockname()[1])
        for sock in server.sockets
        if sock.family == socket.AF_INET
    ]
    await end(*await host.visit())
    server.close()
    await server.wait_closed()


@only_tcp
async def test_each_of_several_hosts_is_listened_on(loop, host):
    names = ["127.0.0.1", "127.0.0.2", "::1"]
    server = await loop.create_server(host.made, names, 0)
    addresses = [sock.getsockname() for sock in server.sockets]
    assert sorted(address[0] for address in addresses) == names
    for host.address in addresses:
        await end(*await host.visit())
    server.close()
    await server.wait_closed()


@only_tcp
async def test_family_chooses_among_the_addresses(loop, host):
    server = await loop.create_server(
        host.made, "localhost", 0, family=socket.AF_INET
    )
    (sock,) = server.sockets
    assert sock.family == socket.AF_INET
    server.close()


async def test_hosts_are_resolved_through_the_loop(loop):
    calls = answering(loop, info(socket.AF_INET, 0))
    server = await loop.create_server(
        Recorder, "some.name", 8, flags=socket.AI_PASSIVE
    )
    ((name, port, options),) = calls
    assert (name, port) == ("some.name", 8)
    assert options["flags"] == socket.AI_PASSIVE
    server.close()


async def test_a_given_socket_is_listened_on(loop, host):
    sock = host.bound()
    server = await host.serve(sock=sock)
    assert sock.gettimeout() == 0
    assert server.sockets[0].fileno() == sock.fileno()
    await end(*await host.visit())
    server.close()
    await server.wait_closed()
    assert sock.fileno() == -1


async def test_backlog_reaches_listen(loop, host):
    seen = []

    class Listening(socket.socket):
        def listen(self, backlog):
            seen.append(backlog)
            super().listen(backlog)

    await host.serve(sock=host.bound(Listening), backlog=7)
    assert seen == [7]
    await end(*await host.visit())


@only_tcp
@pytest.mark.parametrize(
    ("name", "option", "value"),
    [
        ("reuse_address", socket.SO_REUSEADDR, True),
        ("reuse_address", socket.SO_REUSEADDR, False),
        ("keep_alive", socket.SO_KEEPALIVE, True),
        ("keep_alive", socket.SO_KEEPALIVE, None),
    ],
)
async def test_options_of_the_socket(host, name, option, value):
    if name == "keep_alive" and not PY313:
        pytest.skip("keep_alive came with 3.13")
    server = await host.serve(**{name: value})
    (sock,) = server.sockets
    assert sock.getsockopt(socket.SOL_SOCKET, option) == bool(value)


@only_tcp
@pytest.mark.skipif(not hasattr(socket, "SO_REUSEPORT"), reason="no option")
async def test_reuse_port(host):
    """Two servers share a port; without the option it is taken."""
    first = await host.serve(reuse_port=True)
    await host.serve(reuse_port=True)
    with pytest.raises(OSError) as caught:
        await host.serve()
    assert caught.value.errno == errno.EADDRINUSE
    await end(*await host.visit())
    first.close()
    await end(*await host.visit())


@only_tcp
async def test_an_address_in_use_is_refused(host):
    await host.serve()
    with pytest.raises(OSError) as caught:
        await host.serve()
    assert caught.value.errno == errno.EADDRINUSE
    assert str(host.address) in str(caught.value)
    assert "address already in use" in str(caught.value).lower()


async def test_start_serving_false(loop, host):
    server = await host.serve(start_serving=False)
    assert not server.is_serving()
    with pytest.raises(ConnectionRefusedError):
        await host.connect()
    await server.start_serving()
    await server.start_serving()
    assert server.is_serving()
    await end(*await host.visit())


async def test_serve_forever_until_cancelled(loop, host):
    server = await host.serve(start_serving=False)
    task = loop.create_task(server.serve_forever())
    await iterations(2)
    assert server.is_serving()
    await end(*await host.visit())
    with pytest.raises(RuntimeError, match="already being awaited"):
        await server.serve_forever()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert not server.is_serving()
    with pytest.raises(RuntimeError, match="is closed"):
        await server.serve_forever()
    with pytest.raises(CLOSED):
        await host.connect()


async def test_close_ends_serve_forever(loop, host):
    server = await host.serve()
    task = loop.create_task(server.serve_forever())
    await iterations(2)
    server.close()
    with pytest.raises(asyncio.CancelledError):
        await task


async def test_as_a_context_manager(loop, host):
    server = await host.serve()
    async with server as entered:
        assert entered is server
        await end(*await host.visit())
    assert not server.is_serving()
    assert server.sockets == ()


async def test_wait_closed_and_open_connections(loop, host):
    """From 3.12.1 it waits for them; before, it returned at once."""
    server = await host.serve()
    near, far = await host.visit()
    server.close()
    task = loop.create_task(server.wait_closed())
    await iterations(5)
    assert task.done() is not PY312_1
    near.transport.close()
    await far.wait_lost()
    await task
    await end(near, far)


@pytest.mark.skipif(not PY312_1, reason="only from 3.12.1 it waits")
async def test_wait_closed_before_close(loop, host):
    """It waits until the server is closed and the last client is gone."""
    server = await host.serve()
    near, far = await host.visit()
    task = loop.create_task(server.wait_closed())
    await end(near, far)
    await iterations(3)
    assert not task.done()
    server.close()
    await task


@pytest.mark.skipif(not PY312_1, reason="only from 3.12.1 it waits")
async def test_wait_closed_is_woken_by_the_last_of_many(loop, host):
    server = await host.serve()
    pairs = [await host.visit() for _ in range(5)]
    server.close()
    waiters = [loop.create_task(server.wait_closed()) for _ in range(3)]
    for near, far in pairs[:-1]:
        await end(near, far)
    await iterations(3)
    assert not any(task.done() for task in waiters)
    await end(*pairs[-1])
    await asyncio.gather(*waiters)


@pytest.mark.skipif(not PY313, reason="close_clients came with 3.13")
async def test_close_clients_closes_each_connection(loop, host):
    server = await host.serve()
    pairs = [await host.visit() for _ in range(3)]
    pairs[0][1].transport.write(b"last words")
    server.close()
    server.close_clients()
    await server.wait_closed()
    for near, far in pairs:
        assert far.exc is None
        assert await near.wait_lost() is None
    assert pairs[0][0].data == b"last words"


@pytest.mark.skipif(not PY313, reason="abort_clients is new in 3.13")
async def test_abort_clients_aborts_each_connection(loop, host):
    server = await host.serve()
    near, far = await host.visit()
    near.transport.pause_reading()
    far.transport.write(bytes(16 * 1024 * 1024))
    assert far.transport.get_write_buffer_size()
    server.close()
    server.abort_clients()
    await server.wait_closed()
    assert far.exc is None
    await end(near, far)


@pytest.mark.skipif(not PY313, reason="close_clients came with 3.13")
async def test_lost_connections_are_no_clients(loop, host):
    server = await host.serve()
    for _ in range(3):
        await end(*await host.visit())
    near, far = await host.visit()
    assert len(server._clients) == 1
    server.close_clients()
    assert await far.wait_lost() is None
    await end(near, far)


async def test_an_unreferenced_server_goes_on(loop, host):
    """Its listeners belong to the loop, not to the object."""
    server = weakref.ref(await host.serve())
    for _ in range(3):
        gc.collect()
        await iterations(1)
    near, far = await host.visit()
    near.transport.write(b"served")
    assert await far.wait_data(6) == b"served"
    await end(near, far)
    server().close()


def test_a_loop_closed_while_serving(loop_factory):
    """Nothing crashes; the GC closes the socket."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ResourceWarning)
        loop = loop_factory()
        host = Host(loop)
        server = loop.run_until_complete(host.serve())
        sock = server.sockets[0]
        client = host.plain()
        loop.close()
        assert host.made == []
        client.close()
        del server, sock, loop
        host.loop = None
        gc.collect()


@pytest.mark.filterwarnings("ignore:unclosed:ResourceWarning")
@pytest.mark.parametrize("served", [False, True])
def test_a_closed_loop_leaves_no_dropped_server(loop_factory, served):
    """Its address is free for the next loop, without a garbage collection."""

    async def main(host):
        await host.serve()
        if served:
            near, far = await host.visit()
            await end(near, far)
            host.made.clear()

    gc.collect()
    gc.disable()
    try:
        host = Host(None)
        for _ in range(2):
            host.loop = loop_factory()
            host.loop.run_until_complete(main(host))
            host.loop.close()
    finally:
        gc.enable()
        gc.collect()


@pytest.mark.filterwarnings("ignore:unclosed:ResourceWarning")
@pytest.mark.filterwarnings("ignore:unclosed transport:ResourceWarning")
def test_wait_closed_of_a_server_of_a_closed_loop(
    loop_factory, loop_kind, monkeypatch
):
    """Nobody can tell them that its last connection is gone."""
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
async def test_server_closed_in_a_factory(host, loop_kind):
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


async def test_server_closed_in_connection_made_of_one_of_many(host):
    """Clients that were accepted in the same batch all get connection_lost."""
    host.made.factory = lambda: Recorder(made=lambda p: host.close())
    server = await host.serve()
    socks = [host.plain() for _ in range(5)]
    await spin(lambda: host.made and not server.is_serving())
    await iterations(10)
    for protocol in host.made:
        assert protocol.names == ["made"]
    for sock in socks:
        sock.close()
    # Those the kernel had accepted alone were reset with it.
    await host.made.end()
