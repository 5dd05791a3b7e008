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


@pytest.mark.parametrize("loop_kind", ["fastloop"], indirect=True)
@pytest.mark.parametrize("user", ["a transport", "a reader"])
async def test_another_file_gets_the_number_of_a_duplicate(loop, user):
    """The program closed it, as by closing another fd twice."""
    with terminal() as (read, write, far):
        reader, _ = await loop.connect_read_pipe(Recorder, read)
        duplicate = os.dup(far)  # the next number
        os.close(duplicate)
        writer, protocol = await loop.connect_write_pipe(Recorder, write)
        near, peer = socket.socketpair()
        near = moved_to(duplicate, near)
        inode = os.fstat(near.fileno()).st_ino
        if user == "a transport":
            transport, other = await loop.create_connection(
                Recorder, sock=near
            )
            transport.write(b"x")
            assert peer.recv(1) == b"x"
            transport.close()
            await other.wait_lost()
        else:
            loop.add_reader(near, print)
            assert loop.remove_reader(near)
            assert os.fstat(near.fileno()).st_ino == inode
            near.close()
        peer.close()
        writer.write(b"still there")
        assert os.read(far, 99) == b"still there"
        for transport in (reader, writer):
            transport.close()
        await protocol.wait_lost()
        await iterations()


async def test_a_terminals_other_direction_without_a_descriptor(
    loop, loop_kind
):
    with terminal() as (read, write, far):
        reader, protocol = await loop.connect_read_pipe(Recorder, read)
        with few_descriptors():
            failure = None
            try:
                writer, _ = await loop.connect_write_pipe(Recorder, write)
            except OSError as exc:
                failure = exc.errno
        os.write(far, b"x")
        assert await protocol.wait_data(1) == b"x"
        if loop_kind == "fastloop":
            assert failure == errno.EMFILE
        else:
            writer.close()
        reader.close()
        await protocol.wait_lost()
        await iterations()


async def test_a_callback_for_a_pipe_without_a_descriptor(loop, loop_kind):
    with terminal() as (read, _, far):
        writer, protocol = await loop.connect_write_pipe(Recorder, read)
        with few_descriptors():
            failure = None
            try:
                loop.add_reader(read, print)
            except OSError as exc:
                failure = exc.errno
        assert failure == (errno.EMFILE if loop_kind == "fastloop" else None)
        loop.remove_reader(read.fileno())
        await iterations()
        writer.write(b"x")
        assert os.read(far, 1) == b"x"
        writer.close()
        await protocol.wait_lost()


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


@pytest.mark.skipif(sys.platform != "linux", reason="numbers of files")
@pytest.mark.parametrize("loop_kind", ["fastloop"], indirect=True)
@pytest.mark.parametrize("user", ["a connection", "a pipe", "a reader"])
@pytest.mark.parametrize("kind", ["read", "write", "socket"])
async def test_a_pipe_whose_file_was_closed_leaves_the_next_one_alone(
    loop, kind, user
):
    """The program closed its fd, by os.close() or dup2()."""
    first, second = os.pipe() if kind != "socket" else (None, None)
    if kind == "read":
        file = os.fdopen(first, "rb", 0)
        stale, lost = await loop.connect_read_pipe(Recorder, file)
    elif kind == "write":
        file = os.fdopen(second, "wb", 0)
        stale, lost = await loop.connect_write_pipe(Recorder, file)
        stale.write(bytes(100_000))
    else:
        file, end = socket.socketpair()
        file.setblocking(False)
        stale, lost = await loop.connect_read_pipe(Recorder, file)
    await iterations(2)
    number = file.fileno()
    near, peer = socket.socketpair()
    near = moved_to(number, near)
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
    with contextlib.suppress(OSError):  # its fd is closed already
        file.close()
    if kind == "socket":
        end.close()
    else:
        os.close(second if kind == "read" else first)


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
