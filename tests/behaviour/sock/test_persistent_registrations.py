"""sock_recv and sock_sendall on TCP, time and again on one connection.

fastloop keeps such a socket's registration and infers from a short read that
nothing is left: each test has something come, go or change where that could
be wrong.
"""

import asyncio
import contextlib
import select
import socket

import pytest
from net_helpers import (
    Recorder,
    iterations,
    moved_to,
    tcp_socketpair,
    waiting,
)
from patience import PATIENCE


@pytest.fixture
def tcp():
    """A function that makes two joined non-blocking sockets."""
    with contextlib.ExitStack() as stack:

        def make():
            pair = tcp_socketpair()
            for sock in pair:
                stack.enter_context(sock)
                sock.setblocking(False)
            return pair

        yield make


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


async def test_urgent_data_parts_what_is_there(loop, tcp):
    near, far = tcp()

    await exchange(loop, near, far)
    far.send(b"abc")
    far.send(b"!", socket.MSG_OOB)
    far.send(b"def")
    got = b""
    while len(got) < 6:
        got += await loop.sock_recv(near, 100)
    assert got == b"abcdef"
    await exchange(loop, near, far)


async def test_others_may_read_between_two_calls(loop, tcp):
    """The program itself, or a duplicate of the socket."""
    near, far = tcp()

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


async def test_a_waiting_call_is_seen_in_the_selector(loop, tcp):
    near, far = tcp()

    await exchange(loop, near, far)
    assert near.fileno() not in loop._selector.get_map()
    task = await waiting(loop.sock_recv(near, 100))
    reader, writer = loop._selector.get_map()[near.fileno()].data
    assert isinstance(reader, asyncio.Handle)
    assert writer is None
    far.send(b"x")
    await task


async def test_a_transport_takes_the_socket(loop, tcp):
    near, far = tcp()

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


async def test_the_number_is_another_sockets(loop, tcp):
    near, far = tcp()

    await exchange(loop, near, far)
    number = near.fileno()
    near.close()
    far.close()
    other, two = tcp()
    with moved_to(number, other) as one:
        two.send(b"there")
        assert await loop.sock_recv(one, 100) == b"there"
        await exchange(loop, one, two)


async def test_a_pipe_gets_the_fd_of_a_closed_socket(loop, tcp):
    """It needs no duplicate: the registration left there is idle."""
    near, far = tcp()
    left, right = socket.socketpair()
    await exchange(loop, near, far)
    with right:
        fd = near.fileno()
        near.close()
        left = moved_to(fd, left)
        with right.dup() as dup:
            free = dup.fileno()
        protocol = Recorder()
        await loop.connect_read_pipe(lambda: protocol, left)
        with right.dup() as dup:
            assert dup.fileno() == free
        right.send(b"data")
        assert await protocol.wait_data(4) == b"data"
    assert await protocol.wait_lost() is None
