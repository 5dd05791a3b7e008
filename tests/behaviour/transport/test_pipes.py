"""Transports of pipes: errors, ends, shared descriptors, private names."""

import asyncio
import contextlib
import errno
import logging
import os
import pty
import socket
import sys
import tty

import pytest
from few_descriptors import few_descriptors
from net_helpers import Recorder, iterations, moved_to
from patience import PATIENCE


def pipe_files():
    read, write = os.pipe()
    return os.fdopen(read, "rb", 0), os.fdopen(write, "wb", 0)


async def reading(loop, protocol=Recorder):
    """A read pipe: transport, protocol, the file that writes to it."""
    read, write = pipe_files()
    return *await loop.connect_read_pipe(protocol, read), write


async def writing(loop, protocol=Recorder):
    """A write pipe: transport, protocol, the file that reads from it."""
    read, write = pipe_files()
    return *await loop.connect_write_pipe(protocol, write), read


# -- reading -----------------------------------------------------------------


@pytest.mark.reports
@pytest.mark.parametrize("loop_kind", ["fastloop"], indirect=True)
async def test_a_protocol_without_eof_received_ends_at_eof(loop, reports):
    """It is reported once.  asyncio does not call connection_lost then."""

    class Bare:
        def connection_made(self, transport):
            self.lost = loop.create_future()

        def connection_lost(self, exc):
            self.lost.set_result(exc)

    read, write = pipe_files()
    transport, protocol = await loop.connect_read_pipe(Bare, read)
    write.close()
    assert await asyncio.wait_for(protocol.lost, PATIENCE) is None
    assert transport.is_closing()
    (report,) = reports
    assert isinstance(report["exception"], AttributeError)


@pytest.mark.reports
async def test_a_terminal_that_is_hung_up_is_not_reported(loop, reports):
    near, far = pty.openpty()
    _, protocol = await loop.connect_read_pipe(
        Recorder, os.fdopen(near, "rb", 0)
    )
    os.close(far)
    assert (await protocol.wait_lost()).errno == errno.EIO
    assert not reports


# -- writing -----------------------------------------------------------------


async def test_writes_after_close_are_dropped_with_a_warning(loop, caplog):
    caplog.set_level(logging.WARNING, logger="asyncio")
    transport, protocol, read = await writing(loop)
    transport.write_eof()
    for _ in range(7):
        transport.write(b"x")
    text = "pipe closed by peer or os.write(pipe, data) raised exception."
    assert {r.getMessage() for r in caplog.records} == {text}
    assert await protocol.wait_lost() is None
    assert read.read() == b""
    read.close()


@pytest.mark.reports
async def test_a_write_that_fails_ends_the_pipe(loop, reports):
    transport, protocol, read = await writing(loop)
    read.close()
    transport.write(b"x")
    assert transport.is_closing()
    assert isinstance(await protocol.wait_lost(), BrokenPipeError)
    assert not reports


async def test_what_a_socket_receives_ends_a_write_pipe(loop):
    """asyncio takes any readable event for the end of the reader."""
    near, far = socket.socketpair()
    with far:
        _, protocol = await loop.connect_write_pipe(Recorder, near)
        far.send(b"x")
        assert await protocol.wait_lost() is None


# -- ends --------------------------------------------------------------------


async def test_the_parts_of_a_transport(loop):
    transport, protocol, write = await reading(loop)
    pipe = transport._pipe
    assert isinstance(transport, asyncio.ReadTransport)
    assert not isinstance(transport, asyncio.WriteTransport)
    assert transport.get_extra_info("pipe") is pipe
    assert transport.get_extra_info("socket", 5) == 5
    assert transport._fileno == pipe.fileno()
    assert transport._closing is False
    assert transport._loop is loop
    number = transport._fileno
    name = type(transport).__name__
    assert repr(transport) == f"<{name} fd={number} polling>"
    transport.pause_reading()
    assert repr(transport) == f"<{name} fd={number} idle>"
    transport.close()
    assert repr(transport) == f"<{name} closing fd={number} idle>"
    write.close()
    assert await protocol.wait_lost() is None
    await iterations()
    assert repr(transport) == f"<{name} closed fd={number} closed>"
    assert transport.get_extra_info("pipe") is pipe
    assert pipe.closed
    assert transport._pipe is None
    assert transport.get_protocol() is None


async def test_the_parts_of_a_write_transport(loop):
    transport, protocol, read = await writing(loop)
    assert isinstance(transport, asyncio.WriteTransport)
    name, number = type(transport).__name__, transport._fileno
    assert repr(transport) == f"<{name} fd={number} idle bufsize=0>"
    transport.write(b"x" * (1 << 20))
    left = transport.get_write_buffer_size()
    assert repr(transport) == f"<{name} fd={number} polling bufsize={left}>"
    transport.abort()
    assert transport.get_write_buffer_size() == 0
    assert await protocol.wait_lost() is None
    await iterations()
    assert repr(transport) == f"<{name} closed fd={number} closed>"
    transport.close()
    read.close()


# -- a descriptor with another user ------------------------------------------
#
# fastloop waits with a duplicate of it; asyncio gives an fd to several users.


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


@pytest.mark.parametrize("first", ["callback", "pipe"])
async def test_a_callback_and_a_write_pipe_share_a_terminal(loop, first):
    seen = loop.create_future()

    def readable():
        loop.remove_reader(read)
        seen.set_result(read.read(99))

    with terminal() as (read, write, far):
        if first == "callback":
            loop.add_reader(read, readable)
        transport, protocol = await loop.connect_write_pipe(Recorder, write)
        if first == "pipe":
            loop.add_reader(read, readable)
        transport.write(b"out")
        assert os.read(far, 99) == b"out"
        os.write(far, b"in")
        assert await seen == b"in"
        left = 1 << 16
        transport.write(bytes(left))  # waits for room
        os.set_blocking(far, False)
        while left:
            with contextlib.suppress(BlockingIOError):
                left -= len(os.read(far, left))
            await asyncio.sleep(0)
        transport.close()
        assert await protocol.wait_lost() is None


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
@pytest.mark.parametrize("way", ["read", "write"])
@pytest.mark.parametrize("user", ["a connection", "a pipe"])
@pytest.mark.parametrize("by", ["close()", "dup2()"])
async def test_a_pipe_whose_file_was_closed_leaves_the_next_one_alone(
    loop, way, user, by
):
    """The program closed the file, or its fd behind the file's back.

    Readers and writers of the next one are in differential/corpus.txt.
    """
    near, far = socket.socketpair() if way == "read" else pipe_files()[::-1]
    stale, lost = await getattr(loop, f"connect_{way}_pipe")(Recorder, near)
    if way == "write":
        stale.write(bytes(100_000))
    await iterations(2)
    new_near, peer = socket.socketpair()
    number = near.fileno()
    if by == "close()":
        near.close()
    new_near = moved_to(number, new_near)
    peer.setblocking(False)
    peer.send(b"for the new one")
    if user == "a pipe":
        opening = loop.connect_read_pipe(Recorder, new_near)
    else:
        opening = loop.create_connection(Recorder, sock=new_near)
    new, recorder = await opening
    assert await recorder.wait_data(15) == b"for the new one"
    assert (await lost.wait_lost()).errno == errno.EBADF
    assert lost.data == b""
    await iterations()
    with pytest.raises(BlockingIOError):
        peer.recv(1)
    assert stale.get_extra_info("pipe") is near
    new.close()
    await recorder.wait_lost()
    peer.close()
    for end in (near, far):
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
