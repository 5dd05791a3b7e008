"""A sock_* call whose place another user of the fd has taken.

It waits until it is cancelled, and does not keep its socket open.
"""

from __future__ import annotations

import asyncio
import contextlib
import socket

import pytest
from net_helpers import listening_socket, tcp_socketpair, waiting
from patience import PATIENCE


@pytest.fixture(params=["tcp", "unix", "tcp-debug"])
def pair(request, loop):
    """A non-blocking socket and its peer, whose reads end."""
    tcp = request.param.startswith("tcp")
    near, far = tcp_socketpair() if tcp else socket.socketpair()
    near.setblocking(False)
    far.settimeout(PATIENCE)
    loop.set_debug(request.param.endswith("debug"))
    with near, far:
        yield near, far


@pytest.fixture
def displaced(loop):
    """Return a function that begins a call, which is cancelled at the end."""
    tasks = []

    async def begin(operation):
        tasks.append(await waiting(operation))

    yield begin

    async def end():
        for task in tasks:
            assert not task.done()
            task.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await task

    loop.run_until_complete(end())


async def closed_socket(sock, peer):
    """Close a socket; its peer reads EOF at once."""
    sock.close()
    assert sock.fileno() == -1
    assert peer.recv(1) == b""


async def test_by_a_transport(loop, pair, displaced):
    near, far = pair
    await displaced(loop.sock_recv(near, 1))
    lost = loop.create_future()

    class Ends(asyncio.Protocol):
        def connection_lost(self, exc):
            lost.set_result(exc)

    connect = (
        loop.create_unix_connection
        if near.family == socket.AF_UNIX
        else loop.create_connection
    )
    transport, _ = await connect(Ends, sock=near)
    transport.abort()
    assert await lost is None
    assert near.fileno() == -1
    assert far.recv(1) == b""


async def test_by_a_call_that_ends(loop, pair, displaced):
    near, far = pair
    await displaced(loop.sock_recv(near, 1))
    second = await waiting(loop.sock_recv(near, 1))
    far.send(b"x")
    assert await second == b"x"
    await closed_socket(near, far)


async def test_by_a_reader(loop, pair, displaced):
    near, far = pair
    await displaced(loop.sock_recv(near, 1))
    loop.add_reader(near, print)
    assert loop.remove_reader(near)
    await closed_socket(near, far)


async def test_by_remove_reader(loop, pair, displaced):
    near, far = pair
    await displaced(loop.sock_recv(near, 1))
    assert loop.remove_reader(near)
    await closed_socket(near, far)


async def test_by_another_after_close(loop, loop_kind, pair, displaced):
    """The socket closes when the call has lost its place."""
    if loop_kind == "asyncio":
        pytest.skip("asyncio closes at once")
    near, far = pair
    await displaced(loop.sock_recv(near, 1))
    fd = near.fileno()
    near.close()
    assert near.fileno() == fd
    assert loop.remove_reader(fd)
    assert near.fileno() == -1
    assert far.recv(1) == b""


async def test_a_reader_of_a_socket_that_was_closed(
    loop, loop_kind, pair, displaced
):
    """The call's end closes the socket, so there is nothing to register."""
    if loop_kind == "asyncio":
        pytest.skip("asyncio's selector misses that the fd is closed")
    near, _ = pair
    await displaced(loop.sock_recv(near, 1))
    fd = near.fileno()
    near.close()
    with pytest.raises(OSError):
        loop.add_reader(fd, print)
    assert not loop.remove_reader(fd)
    assert near.fileno() == -1


async def test_a_server_of_a_socket_that_was_closed(loop, displaced):
    listener = listening_socket()
    await displaced(loop.sock_accept(listener))
    listener.close()
    with pytest.raises(OSError):
        await loop.create_server(asyncio.Protocol, sock=listener)
    assert listener.fileno() == -1


def test_ctrl_c_while_its_socket_closes_ends_the_run(
    loop, loop_kind, pair_of_ends, displaced
):
    if loop_kind == "asyncio":
        pytest.skip("asyncio closes in the application's own call")

    class Interrupted(socket.socket):
        def close(self):
            closes.append(self)
            super().close()
            if len(closes) == 2:
                raise KeyboardInterrupt

    closes = []
    near, far = pair_of_ends
    with Interrupted(fileno=near.detach()) as sock:
        loop.run_until_complete(displaced(loop.sock_recv(sock, 1)))
        sock.close()
        assert loop.remove_reader(sock.fileno())
        assert sock.fileno() == -1
        assert far.recv(1) == b""
        loop.call_soon(loop.stop)
        with pytest.raises(KeyboardInterrupt):
            loop.run_forever()
        loop.run_forever()  # to the stop


async def test_by_a_server(loop, displaced):
    listener = listening_socket()
    address = listener.getsockname()
    await displaced(loop.sock_accept(listener))
    server = await loop.create_server(asyncio.Protocol, sock=listener)
    server.close()
    with pytest.raises(ConnectionRefusedError):
        socket.create_connection(address, PATIENCE)


async def test_by_a_datagram_transport(loop, displaced):
    near = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    near.setblocking(False)
    near.bind(("127.0.0.1", 0))
    await displaced(loop.sock_recvfrom(near, 100))
    transport, _ = await loop.create_datagram_endpoint(
        asyncio.DatagramProtocol, sock=near
    )
    transport.abort()
    await asyncio.sleep(0)
    assert near.fileno() == -1


def test_by_the_end_of_the_loop(loop_factory, pair_of_ends):
    """close() of the loop ends every wait."""
    near, far = pair_of_ends
    loop = loop_factory()

    async def begin():
        return await waiting(loop.sock_recv(near, 1))

    task = loop.run_until_complete(begin())
    task._log_destroy_pending = False
    loop.close()
    near.close()
    assert near.fileno() == -1
    assert far.recv(1) == b""
    del task


@pytest.fixture(params=["tcp", "unix"])
def pair_of_ends(request):
    near, far = (
        tcp_socketpair() if request.param == "tcp" else socket.socketpair()
    )
    near.setblocking(False)
    far.settimeout(PATIENCE)
    with near, far:
        yield near, far
