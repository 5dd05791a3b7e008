"""Pipes whose fd has another user: fastloop's wait with a duplicate of it.

asyncio gives an fd to several users, and makes no duplicates.
"""

from __future__ import annotations

import contextlib
import errno
import os
import pty
import socket
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
