"""sock_recv and sock_sendall on TCP, time and again on one connection.

fastloop keeps such a socket's registration and infers from a short read that
nothing is left: each test has something come, go or change where that could
be wrong.
"""

from __future__ import annotations

import asyncio
import contextlib
import gc
import os
import select
import socket
import struct
import sys

import pytest
from builds import FREE_THREADED
from net_helpers import (
    MIB,
    Recorder,
    digest,
    fill_socket,
    iterations,
    moved_to,
    pattern,
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


def set_once(future):
    if not future.done():
        future.set_result(None)


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


async def test_messages_both_ways(loop, tcp):
    near, far = tcp()

    async def echo():
        while data := await loop.sock_recv(far, 1000):
            await loop.sock_sendall(far, data)

    task = loop.create_task(echo())
    for size in (1, 10, 999, 1000, 1001, 5000):
        await loop.sock_sendall(near, bytes(size))
        while size:
            size -= len(await loop.sock_recv(near, 1000))
    near.shutdown(socket.SHUT_WR)
    await task


async def test_the_first_wait_gets_all_that_comes_in_two_iterations(loop, tcp):
    """It has just registered the fd, so no recheck reads too early."""
    near, far = tcp()

    task = loop.create_task(loop.sock_recv(near, 100))
    await iterations(2)
    far.send(b"one, ")
    await iterations(1)
    far.send(b"two")
    assert await task == b"one, two"


async def test_into_a_buffer(loop, tcp):
    near, far = tcp()
    buffer = bytearray(10)

    for message in (b"one", b"three", b"0123456789", b"x"):
        task = await waiting(loop.sock_recv_into(near, buffer))
        far.send(message)
        assert await task == len(message)
        assert buffer.startswith(message)
    with pytest.raises((TypeError, BufferError)):
        await loop.sock_recv_into(near, b"read-only")


async def test_more_than_was_asked_for(loop, tcp):
    near, far = tcp()

    await exchange(loop, near, far)
    task = await waiting(loop.sock_recv(near, 4))
    far.send(b"0123456789")
    assert await task == b"0123"
    assert await loop.sock_recv(near, 4) == b"4567"
    assert await loop.sock_recv(near, 4) == b"89"
    await exchange(loop, near, far)


@pytest.mark.parametrize("early", [True, False])
async def test_the_end_comes_with_the_data(loop, tcp, early):
    near, far = tcp()

    await exchange(loop, near, far)
    if early:
        far.send(b"last")
        far.close()
        await iterations(3)
        assert await loop.sock_recv(near, 100) == b"last"
    else:
        task = await waiting(loop.sock_recv(near, 100))
        far.send(b"last")
        far.close()
        assert await task == b"last"
    assert await loop.sock_recv(near, 100) == b""
    assert await loop.sock_recv(near, 100) == b""


async def test_the_end_comes_after_the_data(loop, tcp):
    near, far = tcp()

    await exchange(loop, near, far)
    far.shutdown(socket.SHUT_WR)
    assert await loop.sock_recv(near, 100) == b""
    await loop.sock_sendall(near, b"still")
    assert far.recv(100) == b"still"


@pytest.mark.parametrize("waits", [True, False])
async def test_a_reset(loop, tcp, waits):
    near, far = tcp()

    await exchange(loop, near, far)
    task = waits and await waiting(loop.sock_recv(near, 100))
    far.setsockopt(
        socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0)
    )
    far.close()
    with pytest.raises(ConnectionResetError):
        await (task or loop.sock_recv(near, 100))


async def test_the_programs_own_shutdown(loop, tcp):
    near, far = tcp()

    await exchange(loop, near, far)
    task = await waiting(loop.sock_recv(near, 100))
    near.shutdown(socket.SHUT_RD)
    assert await task == b""
    assert await loop.sock_recv(near, 100) == b""


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


def test_a_low_water_mark(run, loop, tcp):
    """A read that is tried gets what is there, below the mark or not."""
    near, far = tcp()
    near.setsockopt(socket.SOL_SOCKET, socket.SO_RCVLOWAT, 50)

    async def main():
        for _ in range(2):
            task = await waiting(loop.sock_recv(near, 100))
            far.send(bytes(60))
            assert len(await task) == 60
            far.send(b"few")
            await arrived(near)
            assert await loop.sock_recv(near, 100) == b"few"

    run(main())


async def test_a_low_water_mark_set_later(loop, tcp):
    near, far = tcp()

    await exchange(loop, near, far)
    near.setsockopt(socket.SOL_SOCKET, socket.SO_RCVLOWAT, 50)
    far.send(b"few")
    await arrived(near)
    assert await loop.sock_recv(near, 100) == b"few"


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


async def test_a_reader_of_the_programs(loop, tcp):
    near, far = tcp()

    for _ in range(2):
        await exchange(loop, near, far)
        seen = loop.create_future()
        loop.add_reader(near, lambda seen=seen: seen.set_result(1))
        far.send(b"data")
        await seen
        assert loop.remove_reader(near)
        assert await loop.sock_recv(near, 100) == b"data"
    assert not loop.remove_reader(near)
    await exchange(loop, near, far)


async def test_a_reader_takes_the_place_of_a_call(loop, tcp):
    near, far = tcp()

    await exchange(loop, near, far)
    task = await waiting(loop.sock_recv(near, 100))
    seen = loop.create_future()
    loop.add_reader(near, set_once, seen)
    far.send(b"data")
    await seen
    await iterations(3)
    assert not task.done()
    task.cancel()
    await asyncio.wait([task])
    assert loop.remove_reader(near)
    assert await loop.sock_recv(near, 100) == b"data"


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


async def test_a_removed_reader_was_the_calls(loop, tcp):
    near, far = tcp()

    await exchange(loop, near, far)
    task = await waiting(loop.sock_recv(near, 100))
    assert loop.remove_reader(near)
    far.send(b"data")
    await iterations(5)
    assert not task.done()
    task.cancel()
    await asyncio.wait([task])
    assert await loop.sock_recv(near, 100) == b"data"


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


async def test_the_number_is_another_objects(loop, tcp):
    near, far = tcp()

    await exchange(loop, near, far)
    again = socket.socket(fileno=near.detach())
    with again:
        again.setblocking(False)
        far.send(b"there")
        assert await loop.sock_recv(again, 100) == b"there"
        await exchange(loop, again, far)


async def test_another_file_is_put_under_the_socket(loop, tcp):
    near, far = tcp()
    other, end = tcp()

    await exchange(loop, near, far)
    os.dup2(other.fileno(), near.fileno())
    task = await waiting(loop.sock_recv(near, 100))
    end.send(b"of another")
    assert await task == b"of another"
    await exchange(loop, near, end)


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


async def test_what_a_closed_socket_leaves_behind(loop, tcp):
    """Its file lives on in a duplicate, which nobody reads by the loop."""
    near, far = tcp()
    other, end = tcp()

    await exchange(loop, near, far)
    task = await waiting(loop.sock_recv(other, 100))
    readable = loop.create_future()
    left, right = socket.socketpair()
    with near.dup() as dup, left, right:
        loop.add_reader(left, readable.set_result, None)
        near.close()
        for _ in range(600):
            far.send(b"x")
            await iterations(2)
            dup.recv(1)
        end.send(b"data")
        assert await task == b"data"
        await exchange(loop, other, end)
        right.send(b"x")
        await readable
        loop.remove_reader(left)


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


async def test_nobody_reads_for_a_while(loop, tcp):
    near, far = tcp()

    await exchange(loop, near, far)
    for _ in range(50):
        far.send(b"x")
        await iterations(2)
    got = 0
    while got < 50:
        got += len(await loop.sock_recv(near, 7))
    await exchange(loop, near, far)


async def test_a_lot_both_ways(loop, tcp):
    near, far = tcp()
    data = pattern(4 * MIB)

    async def receive(sock):
        got = bytearray()
        while len(got) < len(data):
            got += await loop.sock_recv(sock, 100_000)
        return digest(got)

    results = await asyncio.gather(
        receive(near),
        receive(far),
        loop.sock_sendall(near, data),
        loop.sock_sendall(far, data),
    )
    assert results == [digest(data), digest(data), None, None]
    await exchange(loop, near, far)


async def test_cancelling_takes_nothing(loop, tcp):
    near, far = tcp()

    await exchange(loop, near, far)
    for _ in range(3):
        task = await waiting(loop.sock_recv(near, 100))
        far.send(b"data")
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        assert await loop.sock_recv(near, 100) == b"data"


async def test_debug_mode_comes_and_goes(loop, tcp):
    near, far = tcp()

    for debug in (False, True, False):
        loop.set_debug(debug)
        await exchange(loop, near, far)


def test_nothing_is_kept_alive(run, loop, tcp):
    near, far = tcp()
    before = sys.getrefcount(near)
    run(exchange(loop, near, far, 20))
    gc.collect()
    assert sys.getrefcount(near) == before
    assert near._io_refs == 0


def test_a_collection_removes_what_is_idle(run, loop, tcp):
    """Before 3.12 any allocation of a call may run the GC."""
    near, far = tcp()
    threshold = gc.get_threshold()
    collections = []
    kept = []

    def remove(phase, info):
        due = len(collections) == at
        collections.append(due and loop.remove_reader(near.fileno()))
        # These have the next allocation collect again.
        kept.append([[], [], []])

    async def main():
        loop.remove_reader(near.fileno())
        collections.clear()
        gc.callbacks.append(remove)
        gc.set_threshold(1)
        task = loop.create_task(loop.sock_recv(near, 100))
        await iterations(1)
        gc.set_threshold(*threshold)
        gc.callbacks.remove(remove)
        if True in collections:
            task.cancel()  # it waited, and its reader was taken
            return
        far.send(b"message")
        assert await task == b"message"

    try:
        for at in range(40):  # noqa: B007
            kept.clear()
            run(main())
    finally:
        gc.set_threshold(*threshold)
