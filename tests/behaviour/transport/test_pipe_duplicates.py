"""Pipes whose fd has another user: fastloop's wait with a duplicate of it.

asyncio gives an fd to several users, and makes no duplicates.
"""

from __future__ import annotations

import contextlib
import errno
import os
import pty
import socket
import sys
import tty

import pytest
from few_descriptors import few_descriptors
from net_helpers import Recorder, iterations, moved_to


@contextlib.contextmanager
def terminal():
    """Yield files for the two directions of a terminal, and its far end."""
    near, far = pty.openpty()
    tty.setraw(far)
    read = os.fdopen(near, "rb", 0)
    write = os.fdopen(near, "wb", 0, closefd=False)
    try:
        yield read, write, far
    finally:
        read.close()
        write.close()
        os.close(far)


async def test_a_duplicate_gets_the_number_of_a_registration_left_behind(loop):
    """A program that closes a socket may forget its reader."""
    with terminal() as (read, write, far):
        near, peer = socket.socketpair()
        number = near.fileno()
        loop.add_reader(near, print)
        near.close()
        reader, recorder = await loop.connect_read_pipe(Recorder, read)
        writer, protocol = await loop.connect_write_pipe(Recorder, write)
        os.write(far, b"in")
        assert await recorder.wait_data(2) == b"in"
        writer.write(b"out")
        assert os.read(far, 9) == b"out"
        for transport in (reader, writer):
            transport.close()
        await protocol.wait_lost()
        await recorder.wait_lost()
        loop.remove_reader(number)
        peer.close()


@pytest.mark.parametrize("second", ["a pipe", "a callback"])
async def test_a_second_user_without_a_descriptor(loop, loop_kind, second):
    """It gets an error; the first, of a terminal, goes on."""
    with terminal() as (read, write, far):
        if second == "a pipe":
            first, protocol = await loop.connect_read_pipe(Recorder, read)
        else:
            first, protocol = await loop.connect_write_pipe(Recorder, write)
        failure = other = None
        with few_descriptors():
            try:
                if second == "a pipe":
                    other, _ = await loop.connect_write_pipe(Recorder, write)
                else:
                    loop.add_reader(read, print)
            except OSError as exc:
                failure = exc.errno
        assert failure == (errno.EMFILE if loop_kind == "fastloop" else None)
        if second == "a pipe":
            os.write(far, b"x")
            assert await protocol.wait_data(1) == b"x"
        else:
            loop.remove_reader(read.fileno())
            await iterations()
            first.write(b"x")
            assert os.read(far, 1) == b"x"
        for transport in filter(None, (first, other)):
            transport.close()
        await protocol.wait_lost()
        await iterations()


@pytest.mark.skipif(sys.platform != "linux", reason="numbers of files")
@pytest.mark.parametrize("loop_kind", ["fastloop"], indirect=True)
@pytest.mark.parametrize("way", ["read", "write", "socket"])
@pytest.mark.parametrize("user", ["a connection", "a pipe", "a reader"])
async def test_a_pipe_whose_file_was_closed_leaves_the_next_one_alone(
    loop, way, user
):
    """The program closed its fd, by os.close() or dup2()."""
    read, write = map(os.fdopen, os.pipe(), ("rb", "wb"), (0, 0))
    if way == "socket":
        read.close()
        write.close()
        read, write = socket.socketpair()
    file = write if way == "write" else read
    connect = (
        loop.connect_write_pipe if way == "write" else (loop.connect_read_pipe)
    )
    stale, lost = await connect(Recorder, file)
    if way == "write":
        stale.write(bytes(100_000))
    await iterations(2)
    near, peer = socket.socketpair()
    near = moved_to(file.fileno(), near)
    peer.setblocking(False)
    peer.send(b"for the new one")
    if user == "a reader":
        seen = []
        loop.add_reader(near, lambda: seen.append(near.recv(20)))
        while not seen:
            await iterations(1)
        assert seen == [b"for the new one"]
        assert loop.remove_reader(near)
    else:
        if user == "a pipe":
            new, recorder = await loop.connect_read_pipe(Recorder, near)
        else:
            new, recorder = await loop.create_connection(Recorder, sock=near)
        assert await recorder.wait_data(15) == b"for the new one"
    assert (await lost.wait_lost()).errno == errno.EBADF
    assert lost.data == b""
    await iterations()
    with pytest.raises(BlockingIOError):
        peer.recv(1)
    assert stale.get_extra_info("pipe") is file
    if user != "a reader":
        new.close()
        await recorder.wait_lost()
    near.close()
    peer.close()
    for end in (read, write):
        with contextlib.suppress(OSError):  # one's fd is closed already
            end.close()


@pytest.mark.skipif(sys.platform != "linux", reason="numbers of files")
@pytest.mark.parametrize("loop_kind", ["fastloop"], indirect=True)
async def test_a_pipe_with_a_duplicate_goes_on_when_its_own_fd_is_closed(loop):
    near, far = socket.socketpair()
    near.setblocking(False)
    number = near.detach()
    read = os.fdopen(number, "rb", 0)
    write = os.fdopen(number, "wb", 0)
    writer, protocol = await loop.connect_write_pipe(Recorder, write)
    _, lost = await loop.connect_read_pipe(Recorder, read)  # has the number
    next_near, next_far = socket.socketpair()
    next_near = moved_to(number, next_near)  # that closes the pipes' file
    next_far.setblocking(False)
    new, recorder = await loop.create_connection(Recorder, sock=next_near)
    assert (await lost.wait_lost()).errno == errno.EBADF
    writer.write(b"from the pipe")
    assert far.recv(20) == b"from the pipe"
    with pytest.raises(BlockingIOError):
        next_far.recv(20)
    writer.close()
    await protocol.wait_lost()
    assert writer.get_extra_info("pipe") is write
    next_far.send(b"for the new one")
    assert await recorder.wait_data(15) == b"for the new one"
    new.close()
    await recorder.wait_lost()
    for end in (far, next_far):
        end.close()
    for file in (read, write):  # their fd is closed already
        with contextlib.suppress(OSError):
            file.close()
