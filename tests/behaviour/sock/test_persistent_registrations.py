"""sock_recv and sock_sendall on TCP, time and again on one connection.

fastloop keeps such a socket's registration and infers from a short read that
nothing is left: each test has something come, go or change where that could
be wrong.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import select
import socket

import pytest
from builds import FREE_THREADED
from net_helpers import (
    MIB,
    Recorder,
    fill_socket,
    iterations,
    moved_to,
    spin,
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


async def arrived(sock):
    """Wait until the kernel has something to read, without the loop."""
    dup = sock.dup()
    with dup:
        await spin(lambda: peeked(dup))


def peeked(sock):
    try:
        return sock.recv(1, socket.MSG_PEEK) or True
    except BlockingIOError:
        return False
    except OSError:
        return True


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


async def test_other_readers(loop, tcp):
    """The program itself, or a duplicate, reads between two calls."""
    near, far = tcp()

    other = near.dup()
    with other:
        for reader in (near, other):
            await exchange(loop, near, far)
            task = await waiting(loop.sock_recv(near, 100))
            far.send(b"taken")
            await arrived(other)
            assert reader.recv(100) == b"taken"
            await iterations(3)
            far.send(b"left")
            assert await task == b"left"
            far.send(b"abcd")
            await arrived(other)
            assert reader.recv(2) == b"ab"
            assert await loop.sock_recv(near, 100) == b"cd"


async def test_a_writer_beside_a_waiting_call(loop, tcp):
    near, far = tcp()

    await exchange(loop, near, far)
    task = await waiting(loop.sock_recv(near, 100))
    writable = loop.create_future()
    loop.add_writer(near, lambda: writable.done() or writable.set_result(1))
    await writable
    far.send(b"data")
    assert await task == b"data"
    await exchange(loop, near, far)
    assert loop.remove_writer(near)
    await exchange(loop, near, far)


def become_ready(near, far):
    """Make a full socket writable and readable, without the loop."""
    far.setblocking(True)
    far.send(b"x")
    readable = writable = []
    while not (readable and writable):
        far.recv(65536)
        readable, writable, _ = select.select([near], [near], [], PATIENCE)


async def test_a_call_that_a_reader_has_removed_is_not_tried(loop, tcp):
    """One event is for both directions."""

    def on_readable():
        loop.remove_reader(near)
        removed.append(loop.remove_writer(near))

    removed = []
    # fastloop may try a new call at once, before the reader can remove it.
    while True not in removed and len(removed) < 20:
        near, far = tcp()
        fill_socket(near)
        task = await waiting(loop.sock_sendall(near, b"end"))
        loop.add_reader(near, on_readable)
        become_ready(near, far)
        await iterations()
    assert True in removed
    assert not task.done()
    task.cancel()
    await asyncio.wait([task])


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


@pytest.mark.skipif(
    FREE_THREADED,
    reason="no registration is kept",
)
@pytest.mark.parametrize("loop_kind", ["fastloop"], indirect=True)
async def test_another_file_is_put_under_a_socket_that_waits(loop, tcp):
    """The next wait, of the other direction, notices it."""
    loop.set_debug(False)  # which keeps no registration
    near, far = tcp()
    other, end = tcp()

    await exchange(loop, near, far)
    task = await waiting(loop.sock_recv(near, 100))
    os.dup2(other.fileno(), near.fileno())
    sender = await waiting(loop.sock_sendall(near, bytes(16 * MIB)))
    end.send(b"of another")
    assert await task == b"of another"
    sender.cancel()
    await asyncio.wait([sender])


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
