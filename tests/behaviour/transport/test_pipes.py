"""connect_read_pipe and connect_write_pipe: what they take, how they end."""

from __future__ import annotations

import asyncio
import os
import pty
import socket

import pytest
from net_helpers import Recorder, iterations
from patience import PATIENCE


def open_pipe(tmp_path):
    read, write = os.pipe()
    return os.fdopen(read, "rb", 0), os.fdopen(write, "wb", 0)


def open_fifo(tmp_path):
    path = tmp_path / "fifo"
    os.mkfifo(path)
    read = os.open(path, os.O_RDONLY | os.O_NONBLOCK)
    return os.fdopen(read, "rb", 0), open(path, "wb", 0)


def open_socket(tmp_path):
    return socket.socketpair()


def open_pty(tmp_path):
    near, far = pty.openpty()
    return os.fdopen(near, "rb", 0), os.fdopen(far, "wb", 0)


every_pair = pytest.mark.parametrize(
    "make", [open_pipe, open_fifo, open_socket, open_pty]
)


@every_pair
async def test_what_is_written_to_a_pipe_is_received(loop, tmp_path, make):
    read, write = make(tmp_path)
    with write:
        transport, protocol = await loop.connect_read_pipe(Recorder, read)
        assert transport.get_extra_info("pipe") is read
        assert not os.get_blocking(read.fileno())
        os.write(write.fileno(), b"hello")
        assert await protocol.wait_data(5) == b"hello"
        transport.pause_reading()
        os.write(write.fileno(), b"more")
        await iterations()
        assert protocol.data == b"hello"
        transport.resume_reading()
        assert await protocol.wait_data(9) == b"hellomore"
        transport.close()
        assert await protocol.wait_lost() is None
        assert read.fileno() == -1 if make is open_socket else read.closed


async def test_the_end_of_a_pipe_comes_after_its_data(loop, tmp_path):
    read, write = open_pipe(tmp_path)
    _, protocol = await loop.connect_read_pipe(Recorder, read)
    write.write(b"last")
    write.close()
    assert await protocol.wait_lost() is None
    assert protocol.names == ["made", "data", "eof", "lost"]
    assert protocol.data == b"last"


async def test_a_reader_that_dies_with_data_waiting(loop, tmp_path):
    read, write = open_pipe(tmp_path)
    transport, protocol = await loop.connect_write_pipe(Recorder, write)
    transport.write(bytes(1 << 20))
    assert protocol.names == ["made", "pause"]
    read.close()
    assert isinstance(await protocol.wait_lost(), BrokenPipeError)


async def test_a_full_pipe_takes_the_rest_when_it_is_read(loop, tmp_path):
    read, write = open_pipe(tmp_path)
    with read:
        transport, protocol = await loop.connect_write_pipe(Recorder, write)
        transport.write(bytes(1 << 20))
        assert transport.get_write_buffer_size() > 0
        transport.write_eof()
        got = 0
        while not protocol.lost:
            os.set_blocking(read.fileno(), False)
            data = read.read(1 << 16)
            got += len(data or b"")
            await asyncio.sleep(0)
        while data := read.read(1 << 16):
            got += len(data)
        assert got == 1 << 20
        assert protocol.count("resume") == 1
        assert protocol.exc is None


async def test_repr_shows_a_name_without_a_dot(loop, tmp_path):
    read, write = open_pipe(tmp_path)
    with write:
        transport, protocol = await loop.connect_read_pipe(Recorder, read)
        kind = type(transport)
        name = kind.__name__
        kind.__name__ = "Renamed"
        try:
            assert repr(transport).startswith("<Renamed fd=")
            transport.close()
            assert await protocol.wait_lost() is None
            assert repr(transport).startswith("<Renamed closed")
        finally:
            kind.__name__ = name


@pytest.mark.reports
@pytest.mark.parametrize("loop_kind", ["fastloop"], indirect=True)
async def test_a_protocol_without_eof_received_ends_at_eof(
    loop, tmp_path, reports
):
    """It is reported once.  asyncio does not call connection_lost then."""

    class Bare:
        def connection_made(self, transport):
            self.lost = loop.create_future()

        def connection_lost(self, exc):
            self.lost.set_result(exc)

    read, write = open_pipe(tmp_path)
    transport, protocol = await loop.connect_read_pipe(Bare, read)
    write.close()
    assert await asyncio.wait_for(protocol.lost, PATIENCE) is None
    assert transport.is_closing()
    (report,) = reports
    assert isinstance(report["exception"], AttributeError)


@pytest.mark.parametrize("make", [open_pipe, open_fifo, open_socket])
async def test_eof_of_a_pipe_does_not_call_a_replaced_close(
    loop, tmp_path, make
):
    read, write = make(tmp_path)
    with write:
        transport, protocol = await loop.connect_read_pipe(Recorder, read)
        transport.close = pytest.fail
    assert await protocol.wait_lost() is None
    assert protocol.names == ["made", "eof", "lost"]
