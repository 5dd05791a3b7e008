"""Transports of pipes: errors, ends, shared descriptors, private names."""

from __future__ import annotations

import asyncio
import contextlib
import errno
import logging
import os
import pty
import re
import socket
import tempfile
import tty

import pytest
from net_helpers import Recorder, iterations
from patience import PATIENCE

MANY = 1 << 20


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


# -- what is taken -----------------------------------------------------------


@pytest.mark.parametrize(
    ("way", "text"),
    [
        ("read", "Pipe transport is for pipes/sockets only."),
        (
            "write",
            "Pipe transport is only for pipes, sockets and character devices",
        ),
    ],
)
async def test_a_regular_file_is_refused_with_asyncios_text(loop, way, text):
    connect = getattr(loop, f"connect_{way}_pipe")
    with tempfile.TemporaryFile() as file:
        with pytest.raises(ValueError, match=f"^{re.escape(text)}$"):
            await connect(Recorder, file)
        assert not file.closed


# -- reading -----------------------------------------------------------------


@pytest.mark.reports
async def test_a_read_that_fails_is_reported(loop, reports):
    transport, protocol, write = await reading(loop)
    with write:
        directory = os.open("/", os.O_RDONLY)
        os.dup2(directory, transport._fileno)
        os.close(directory)
        transport._read_ready()
        assert transport.is_closing()
        assert isinstance(await protocol.wait_lost(), IsADirectoryError)
    (report,) = reports
    assert report["message"] == "Fatal read error on pipe transport"
    assert report["transport"] is transport
    assert report["protocol"] is protocol


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
    counts = []
    for _ in range(7):
        transport.write(b"x")
        counts.append(transport._conn_lost)
    assert counts == [1, 2, 3, 4, 5, 6, 7]
    text = "pipe closed by peer or os.write(pipe, data) raised exception."
    assert [r.getMessage() for r in caplog.records] == [text] * 2
    assert await protocol.wait_lost() is None
    assert read.read() == b""
    read.close()


@pytest.mark.reports
async def test_a_write_that_fails_is_counted(loop, reports, caplog):
    caplog.set_level(logging.WARNING, logger="asyncio")
    transport, protocol, read = await writing(loop)
    read.close()
    transport.write(b"x")
    assert transport._conn_lost == 1
    assert transport.is_closing()
    for _ in range(5):
        transport.write(b"x")
    assert len(caplog.records) == 1
    assert isinstance(await protocol.wait_lost(), BrokenPipeError)
    assert not reports


async def test_what_a_socket_receives_ends_a_write_pipe(loop):
    """asyncio takes any readable event for the end of the reader."""
    near, far = socket.socketpair()
    with far:
        _, protocol = await loop.connect_write_pipe(Recorder, near)
        far.send(b"x")
        assert await protocol.wait_lost() is None


# -- one descriptor, several users -------------------------------------------


@pytest.mark.parametrize("first", ["callback", "pipe"])
async def test_a_callback_and_a_write_pipe_share_a_terminal(loop, first):
    near, far = pty.openpty()
    tty.setraw(far)
    seen = loop.create_future()

    def readable():
        loop.remove_reader(near)
        seen.set_result(os.read(near, 99))

    if first == "callback":
        loop.add_reader(near, readable)
    transport, protocol = await loop.connect_write_pipe(
        Recorder, os.fdopen(near, "wb", 0)
    )
    if first == "pipe":
        loop.add_reader(near, readable)
    transport.write(b"out")
    assert os.read(far, 99) == b"out"
    os.write(far, b"in")
    assert await asyncio.wait_for(seen, 10) == b"in"
    transport.write(bytes(1 << 16))  # waits for room
    os.set_blocking(far, False)
    got = 0
    async with asyncio.timeout(10):
        while got < 1 << 16:
            with contextlib.suppress(BlockingIOError):
                got += len(os.read(far, 1 << 16))
            await asyncio.sleep(0)
    transport.close()
    assert await protocol.wait_lost() is None
    os.close(far)


# -- ends --------------------------------------------------------------------


async def test_the_parts_of_a_transport(loop):
    transport, protocol, write = await reading(loop)
    pipe = transport._pipe
    assert isinstance(transport, asyncio.ReadTransport)
    assert not isinstance(transport, asyncio.WriteTransport)
    assert transport.get_extra_info("pipe") is pipe
    assert transport.get_extra_info("socket", 5) == 5
    assert transport._fileno == pipe.fileno()
    assert (transport._closing, transport._paused) == (False, False)
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
    transport.write(b"x" * MANY)
    left = transport.get_write_buffer_size()
    assert repr(transport) == f"<{name} fd={number} polling bufsize={left}>"
    assert transport._buffer == bytearray(b"x" * left)
    transport.abort()
    assert transport.get_write_buffer_size() == 0
    assert await protocol.wait_lost() is None
    await iterations()
    assert repr(transport) == f"<{name} closed fd={number} closed>"
    transport.close()
    read.close()


async def test_debug_mode_tells_that_the_peer_closed(loop, caplog):
    caplog.set_level(logging.INFO, logger="asyncio")
    loop.set_debug(True)
    _, protocol, write = await reading(loop)
    write.close()
    await protocol.wait_lost()
    _, protocol, read = await writing(loop)
    read.close()
    await protocol.wait_lost()
    loop.set_debug(False)
    texts = [r.getMessage() for r in caplog.records]
    assert sum(t.endswith(" was closed by peer") for t in texts) == 2


# -- subprocesses ------------------------------------------------------------
