"""sock_recv and sock_sendall on TCP, time and again on one connection.

fastloop keeps such a socket's registration and infers from a short read that
nothing is left: each test has something come, go or change where that could
be wrong.
"""

import asyncio
import select

import pytest
from net_helpers import (
    iterations,
    tcp_socketpair,
    waiting,
)
from patience import PATIENCE


@pytest.fixture
def tcp():
    """Two joined non-blocking sockets."""
    near, far = tcp_socketpair()
    with near, far:
        near.setblocking(False)
        yield near, far


async def exchange(loop, near, far, count=2):
    """Have near wait for messages, so that its registration is kept."""
    for number in range(count):
        message = b"message %d" % number
        task = await waiting(loop.sock_recv(near, 100))
        far.send(message)
        assert await task == message


def wait_for_data(sock):
    """Wait until the kernel has something to read, without the loop."""
    assert select.select([sock], [], [], PATIENCE)[0]


async def test_others_may_read_between_two_calls(loop, tcp):
    """The program itself, or a duplicate of the socket."""
    near, far = tcp

    other = near.dup()
    with other:
        for reader in (near, other):
            await exchange(loop, near, far)
            task = await waiting(loop.sock_recv(near, 100))
            far.send(b"taken")
            wait_for_data(other)
            assert reader.recv(100) == b"taken"
            await iterations(3)
            far.send(b"left")
            assert await task == b"left"
            far.send(b"abcd")
            wait_for_data(other)
            assert reader.recv(2) == b"ab"
            assert await loop.sock_recv(near, 100) == b"cd"


async def test_a_transport_takes_the_socket(loop, tcp):
    near, far = tcp

    await exchange(loop, near, far)
    far.send(b"early")
    reader, writer = await asyncio.open_connection(sock=near)
    assert await reader.readexactly(5) == b"early"
    far.send(b"late")
    assert await reader.readexactly(4) == b"late"
    with pytest.raises(RuntimeError, match="is used by transport"):
        await loop.sock_recv(near, 100)
    writer.close()
    await writer.wait_closed()
