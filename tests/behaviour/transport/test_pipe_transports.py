"""Transports of pipes: errors, ends, shared descriptors, private names."""

from __future__ import annotations

import asyncio
import contextlib
import errno
import gc
import io
import logging
import os
import pty
import re
import socket
import tempfile
import tty
import warnings
import weakref

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


async def test_a_protocol_that_pauses_gets_no_more(loop, loop_kind):
    asyncios = asyncio.unix_events._UnixReadPipeTransport
    if loop_kind == "asyncio" and "is_reading" not in vars(asyncios):
        pytest.skip("asyncio has no is_reading() of pipes before 3.11.3")

    class Pauses(Recorder):
        def data_received(self, data):
            super().data_received(data)
            self.transport.pause_reading()

    transport, protocol, write = await reading(loop, Pauses)
    with write:
        write.write(b"x")
        assert await protocol.wait_data(1) == b"x"
        assert not transport.is_reading()
        write.write(b"y")
        await iterations()
        assert protocol.data == b"x"
        transport.resume_reading()
        assert transport.is_reading()
        assert await protocol.wait_data(2) == b"xy"
        transport.close()
        assert not transport.is_reading()
        transport.resume_reading()
        transport.pause_reading()
        assert await protocol.wait_lost() is None


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


@pytest.mark.parametrize("data", ["text", 1, None])
async def test_only_bytes_are_written(loop, data):
    transport, protocol, read = await writing(loop)
    with read:
        with pytest.raises(AssertionError, match=repr(data)):
            transport.write(data)
        transport.write(b"a")
        transport.write(bytearray(b"b"))
        transport.write(memoryview(b"cd"))
        transport.write(b"")
        transport.writelines([b"e", bytearray(b"f")])
        with pytest.raises(TypeError, match="sequence item 1"):
            transport.writelines([b"g", data])
        assert read.read(99) == b"abcdef"
        assert transport.can_write_eof()
        transport.close()
        assert await protocol.wait_lost() is None


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


async def test_a_new_pipe_gets_the_fd_of_a_closed_one(loop, loop_kind):
    """The application closed the first behind its transport's back."""
    if loop_kind == "asyncio":
        pytest.skip("asyncio never polls the second")
    transport, first, write = await reading(loop)
    number = transport._fileno
    transport._pipe.close()
    write.close()
    read, write = pipe_files()
    assert read.fileno() == number
    with write:
        second, protocol = await loop.connect_read_pipe(Recorder, read)
        write.write(b"x")
        assert await protocol.wait_data(1) == b"x"
        assert first.data == b""
        second.close()
        assert await protocol.wait_lost() is None
    transport.close()
    await first.wait_lost()


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


async def test_a_paused_pipe_that_nobody_has_is_collected(loop, loop_kind):
    if loop_kind == "asyncio":
        pytest.skip("asyncio's loop keeps it for a while")

    class Ignores(asyncio.Protocol):
        pass

    transport, _, write = await reading(loop, Ignores)
    pipe = transport._pipe
    transport.pause_reading()
    gone = weakref.ref(transport)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always", ResourceWarning)
        del transport
        await iterations()
        gc.collect()
        await iterations()
    texts = "\n".join(str(warning.message) for warning in caught)
    assert re.search(r"unclosed transport <\w+ fd=\d+ idle>", texts)
    caught.clear()  # a warning refers to its source
    assert gone() is None
    assert pipe.closed
    write.close()


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


class Asked(io.FileIO):
    """Runs a function of the test in fileno(), once."""

    asked = staticmethod(lambda: None)

    def fileno(self):
        asked, self.asked = self.asked, lambda: None
        asked()
        return super().fileno()


@pytest.mark.filterwarnings("ignore:unclosed transport:ResourceWarning")
@pytest.mark.parametrize("loop_kind", ["fastloop"], indirect=True)
@pytest.mark.parametrize("end", ["loop.close()", "transport.__del__()"])
def test_the_end_of_a_pipe_whose_fd_is_shared(loop, end):
    """In the file's fileno(), which fastloop asks for the fd there."""
    read, write = os.pipe()
    pipe = Asked(read, "rb")
    transport, protocol = loop.run_until_complete(
        loop.connect_read_pipe(Recorder, pipe)
    )
    loop.run_until_complete(iterations())
    pipe.asked = transport.__del__ if end[0] == "t" else loop.close
    kind, text = (
        (OSError, "Bad file") if end[0] == "t" else (RuntimeError, "closed")
    )
    with os.fdopen(write, "wb", 0):
        with pytest.raises(kind, match=text):
            loop.add_reader(transport._fileno, print)
        assert protocol.names == ["made"]
        del transport, pipe.asked, protocol
        gc.collect()
    assert pipe.closed
