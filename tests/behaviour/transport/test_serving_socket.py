"""A server's listening socket, registered like any other descriptor."""

import asyncio
import errno
import socket

import pytest
from net_helpers import listening_socket, moved_to


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
