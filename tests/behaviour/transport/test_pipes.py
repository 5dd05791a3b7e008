"""Transports of pipes: errors, ends, shared descriptors, private names."""

import asyncio
import contextlib
import errno
import gc
import logging
import os
import pty
import socket
import tty

import pytest
from few_descriptors import few_descriptors
from net_helpers import Recorder, iterations
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
    assert repr(transport).startswith(f"<{name} fd={number} ")
    assert "polling" in repr(transport)
    transport.pause_reading()
    assert "polling" not in repr(transport)
    transport.close()
    assert repr(transport).startswith(f"<{name} closing fd={number} ")
    write.close()
    assert await protocol.wait_lost() is None
    await iterations()
    assert repr(transport).startswith(f"<{name} closed fd={number} ")
    assert transport.get_extra_info("pipe") is pipe
    assert pipe.closed
    assert transport._pipe is None
    assert transport.get_protocol() is None


async def test_the_parts_of_a_write_transport(loop):
    transport, protocol, read = await writing(loop)
    assert isinstance(transport, asyncio.WriteTransport)
    name, number = type(transport).__name__, transport._fileno
    assert repr(transport).startswith(f"<{name} fd={number} ")
    assert "idle" in repr(transport)
    transport.write(b"x" * (1 << 20))
    left = transport.get_write_buffer_size()
    assert f"bufsize={left}>" in repr(transport)
    transport.abort()
    assert transport.get_write_buffer_size() == 0
    assert await protocol.wait_lost() is None
    await iterations()
    assert repr(transport).startswith(f"<{name} closed fd={number} ")
    transport.close()
    read.close()


# -- a descriptor with another user ------------------------------------------
#
# As with asyncio, the two directions of an fd may have a user each.


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


async def use_reader(loop, read):
    """Return a future for the first bytes, and what stops reading."""
    seen = loop.create_future()

    def readable():
        seen.set_result(read.read(99))
        loop.remove_reader(read)

    loop.add_reader(read, readable)
    return seen, lambda: loop.remove_reader(read)


async def use_read_pipe(loop, read):
    transport, protocol = await loop.connect_read_pipe(Recorder, read)
    return protocol.wait_data(2), transport.close


@pytest.mark.parametrize("first", ["the reader", "the writer"])
@pytest.mark.parametrize("use", [use_reader, use_read_pipe])
async def test_a_write_pipe_shares_a_terminal_with_a_reader(loop, first, use):
    """No duplicate of the descriptor is needed."""
    with terminal() as (read, write, far):
        if first == "the reader":
            seen, stop = await use(loop, read)
        with few_descriptors():
            transport, protocol = await loop.connect_write_pipe(
                Recorder, write
            )
            if first == "the writer":
                seen, stop = await use(loop, read)
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
        stop()
        await iterations()


@pytest.mark.parametrize("way", ["read", "write"])
def test_a_transport_without_its_pipe_leaves_the_file_open(loop, way):
    """As aioconsole's, for the standard streams."""
    read, write = pipe_files()
    pipe, far = (read, write) if way == "read" else (write, read)
    transport, _ = loop.run_until_complete(
        getattr(loop, f"connect_{way}_pipe")(Recorder, pipe)
    )
    transport._pipe = None
    assert transport._pipe is None
    loop.close()
    del transport, _
    gc.collect()
    os.fstat(pipe.fileno())
    pipe.close()
    far.close()


@pytest.mark.parametrize("loop_kind", ["fastloop"], indirect=True)
async def test_a_transport_without_its_pipe_goes_on(loop):
    """To its end, at which asyncio's raises AttributeError."""
    size = 1 << 20
    transport, protocol, read = await writing(loop)
    transport.write(bytes(size))
    transport._pipe = None
    os.set_blocking(read.fileno(), False)
    while size:
        with contextlib.suppress(BlockingIOError):
            size -= len(os.read(read.fileno(), size))
        await asyncio.sleep(0)
    receiver, seen, write = await reading(loop)
    receiver._pipe = None
    receiver.pause_reading()
    receiver.resume_reading()
    write.write(b"in")
    assert await seen.wait_data(2) == b"in"
    for ended, its in ((transport, protocol), (receiver, seen)):
        ended.close()
        await its.wait_lost()
        with ended.get_extra_info("pipe") as pipe:
            os.fstat(pipe.fileno())
    write.close()
    read.close()
