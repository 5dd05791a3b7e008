"""A server's listening socket, registered like any other descriptor."""

import asyncio
import errno
import socket

import pytest
from net_helpers import listening_socket, moved_to
from patience import PATIENCE


async def serve(loop):
    """Return a server, its socket and the transports it accepts."""
    accepted = asyncio.Queue()

    class Serves(asyncio.Protocol):
        def connection_made(self, transport):
            accepted.put_nowait(transport)

    listener = socket.create_server(("127.0.0.1", 0))
    listener.setblocking(False)
    server = await loop.create_server(Serves, sock=listener)
    return server, listener, accepted


async def assert_serves(loop, listener, accepted):
    with socket.create_connection(listener.getsockname()):
        transport = await asyncio.wait_for(accepted.get(), PATIENCE)
        transport.abort()
    await asyncio.sleep(0)
    await asyncio.sleep(0)


async def assert_leaves_connections_waiting(listener, accepted):
    with socket.create_connection(listener.getsockname()):
        for _ in range(20):
            await asyncio.sleep(0)
        await asyncio.sleep(0.01)
        assert accepted.empty()
        listener.accept()[0].close()


async def end(server):
    server.close()
    await server.wait_closed()


async def test_it_has_no_writer(loop):
    server, listener, accepted = await serve(loop)
    assert loop.remove_writer(listener) is False
    await assert_serves(loop, listener, accepted)
    await end(server)


async def test_a_reader_takes_its_connections(loop):
    server, listener, accepted = await serve(loop)
    taken = []
    loop.add_reader(listener, lambda: taken.append(listener.accept()[0]))
    with socket.create_connection(listener.getsockname()):
        while not taken:
            await asyncio.sleep(0)
    assert accepted.empty()
    assert loop.remove_reader(listener) is True
    await assert_leaves_connections_waiting(listener, accepted)
    taken[0].close()
    await end(server)


async def test_sock_accept_takes_a_connection_and_the_serving_ends(loop):
    server, listener, accepted = await serve(loop)
    accept = asyncio.ensure_future(loop.sock_accept(listener))
    await asyncio.sleep(0)
    with socket.create_connection(listener.getsockname()):
        taken, _ = await asyncio.wait_for(accept, PATIENCE)
    assert accepted.empty()
    taken.close()
    await assert_leaves_connections_waiting(listener, accepted)
    await end(server)


@pytest.mark.parametrize("in_the_same_batch", [False, True])
async def test_the_next_file_of_its_fd_keeps_its_connections(
    loop, reports, in_the_same_batch
):
    """The old file's event is queued already, or a duplicate is open."""
    server, listener, accepted = await serve(loop)
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
        while not new:
            await asyncio.sleep(0)
    # Its event follows that of `near`.
    with socket.create_connection(old.getsockname()):
        while not reports:
            await asyncio.sleep(0)
    with (
        near,
        far,
        old,
        new[0],
        socket.create_connection(new[0].getsockname()) as client,
    ):
        await asyncio.sleep(0.01)
        assert accepted.empty()
        peer, address = new[0].accept()
        with peer:
            assert address == client.getsockname()
    assert {info["exception"].errno for info in reports} == {errno.EBADF}
    loop.remove_reader(fd)
    with pytest.raises(ValueError, match="-1"):
        server.close()


@pytest.mark.reports
async def test_a_fileno_that_fails_once_does_not_stop_the_server(
    loop, loop_kind, reports
):
    if loop_kind == "asyncio":
        pytest.skip("asyncio's accept does not call it")

    class Fails:
        """A wrapper, as gunicorn's."""

        def __init__(self, sock):
            self.sock, self.fails = sock, False

        def __getattr__(self, name):
            return getattr(self.sock, name)

        def fileno(self):
            if self.fails:
                self.fails = False
                raise MemoryError
            return self.sock.fileno()

    listener = Fails(listening_socket())
    served = loop.create_future()

    class Serves(asyncio.Protocol):
        def connection_made(self, transport):
            transport.abort()
            served.set_result(None)

    server = await loop.create_server(Serves, sock=listener)
    listener.fails = True
    with socket.create_connection(listener.getsockname()):
        await asyncio.wait_for(served, PATIENCE)
    assert [type(info["exception"]) for info in reports] == [MemoryError]
    await end(server)
