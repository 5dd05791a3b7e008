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
import subprocess
import sys
import tempfile
import tty
import warnings
import weakref

import pytest
from net_helpers import Recorder, iterations

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


def drain(file):
    os.set_blocking(file.fileno(), False)
    return len(file.read(MANY * 2) or b"")


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


@pytest.mark.parametrize("way", ["read", "write"])
async def test_a_protocol_needs_connection_made(loop, way):
    connect = getattr(loop, f"connect_{way}_pipe")
    read, write = pipe_files()
    with read, write, warnings.catch_warnings():
        warnings.simplefilter("ignore", ResourceWarning)  # asyncio's own
        with pytest.raises(AttributeError, match="connection_made"):
            await connect(object, read if way == "read" else write)
        gc.collect()


@pytest.mark.reports
async def test_a_file_that_cannot_be_polled_is_connected(loop, reports):
    transport, protocol = await loop.connect_read_pipe(
        Recorder, open("/dev/null", "rb", 0)
    )
    assert [type(r["exception"]) for r in reports] == [PermissionError]
    assert protocol.names == ["made"]
    transport.close()
    assert await protocol.wait_lost() is None


# -- reading -----------------------------------------------------------------


@pytest.mark.reports
async def test_a_buffered_protocol_gets_no_data(loop, reports):
    class Buffered(asyncio.BufferedProtocol):
        pass

    transport, protocol, write = await reading(loop, Buffered)
    with write:
        write.write(b"x")
        await iterations()
        transport.close()
        await iterations()
    assert isinstance(reports[0]["exception"], AttributeError)


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
async def test_a_terminal_that_is_hung_up_is_not_reported(loop, reports):
    near, far = pty.openpty()
    _, protocol = await loop.connect_read_pipe(
        Recorder, os.fdopen(near, "rb", 0)
    )
    os.close(far)
    assert (await protocol.wait_lost()).errno == errno.EIO
    assert not reports


async def test_a_stream_reader_reads_a_pipe(loop):
    reader = asyncio.StreamReader()
    transport, _, write = await reading(
        loop, lambda: asyncio.StreamReaderProtocol(reader)
    )
    write.write(b"one\ntwo\n" + bytes(9000))
    assert await reader.readline() == b"one\n"
    assert await reader.readline() == b"two\n"
    assert await reader.readexactly(9000) == bytes(9000)
    write.write(b"rest")
    write.close()
    assert await reader.read() == b"rest"
    await iterations()
    assert transport.is_closing()


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


async def test_writing_resumes_once_the_buffer_is_empty(loop):
    transport, protocol, read = await writing(loop)
    assert transport.get_write_buffer_limits() == (1 << 14, 1 << 16)
    transport.set_write_buffer_limits(high=MANY // 2, low=MANY // 2 - 1)
    with read:
        transport.write(bytes(MANY))
        assert protocol.names == ["made", "pause"]
        sizes = []
        while protocol.count("resume") == 0:
            sizes.append(transport.get_write_buffer_size())
            drain(read)
            await asyncio.sleep(0)
        assert min(sizes) < MANY // 2
        assert transport.get_write_buffer_size() == 0
        transport.close()
        assert await protocol.wait_lost() is None


async def test_what_a_socket_receives_ends_a_write_pipe(loop):
    """asyncio takes any readable event for the end of the reader."""
    near, far = socket.socketpair()
    with far:
        _, protocol = await loop.connect_write_pipe(Recorder, near)
        far.send(b"x")
        assert await protocol.wait_lost() is None


# -- one descriptor, several users -------------------------------------------


async def test_both_directions_of_a_terminal_by_one_descriptor(loop):
    near, far = pty.openpty()
    tty.setraw(far)
    reader, got = await loop.connect_read_pipe(
        Recorder, os.fdopen(near, "rb", 0)
    )
    writer, sender = await loop.connect_write_pipe(
        Recorder, os.fdopen(near, "wb", 0, closefd=False)
    )
    writer.write(b"out")
    assert os.read(far, 99) == b"out"
    os.write(far, b"in")
    assert await got.wait_data(2) == b"in"
    writer.write(b"more")
    assert os.read(far, 99) == b"more"
    writer.close()
    assert await sender.wait_lost() is None
    reader.close()
    assert await got.wait_lost() is None
    os.close(far)


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


class Asked(io.FileIO):
    """Runs a function of the test in fileno(), once."""

    asked = staticmethod(lambda: None)

    def fileno(self):
        asked, self.asked = self.asked, lambda: None
        asked()
        return super().fileno()


async def asked_pipe(loop):
    """A read pipe's transport, its protocol, its file, the writing file."""
    read, write = os.pipe()
    pipe = Asked(read, "rb")
    transport, protocol = await loop.connect_read_pipe(Recorder, pipe)
    await iterations()
    return transport, protocol, pipe, os.fdopen(write, "wb", 0)


async def test_a_pipe_that_is_closed_while_its_fd_is_shared(loop):
    """asyncio does not ask it for the fd there."""
    transport, protocol, pipe, write = await asked_pipe(loop)
    pipe.asked = transport.close
    with write:
        loop.add_reader(transport._fileno, print)
        transport.close()
        loop.remove_reader(transport._fileno)
        assert await protocol.wait_lost() is None
    assert protocol.names == ["made", "lost"]


@pytest.mark.parametrize("loop_kind", ["fastloop"], indirect=True)
async def test_a_pipe_that_ends_while_its_fd_is_shared(loop):
    """By a call of its finalizer, which closes the file at once."""
    transport, protocol, pipe, write = await asked_pipe(loop)
    pipe.asked = transport.__del__
    with write, pytest.warns(ResourceWarning), pytest.raises(OSError) as got:
        loop.add_reader(transport._fileno, print)
    assert got.value.errno == errno.EBADF
    assert pipe.closed
    assert protocol.names == ["made"]


@pytest.mark.parametrize("loop_kind", ["fastloop"], indirect=True)
def test_a_loop_that_is_closed_while_a_pipes_fd_is_shared(loop):
    made = loop.run_until_complete(asked_pipe(loop))
    transport, protocol, pipe, write = made
    pipe.asked = loop.close
    with write, pytest.raises(RuntimeError, match="Event loop is closed"):
        loop.add_reader(transport._fileno, print)
    with pytest.warns(ResourceWarning, match="unclosed transport"):
        del made, transport, protocol
        gc.collect()
    assert pipe.closed


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


@pytest.mark.usefixtures("child_watcher")
async def test_a_subprocess_gets_many_small_writes(loop):
    child = await asyncio.create_subprocess_exec(
        sys.executable,
        "-c",
        "import sys; data = sys.stdin.buffer.read();"
        "sys.stdout.buffer.write(data); sys.stderr.write(str(len(data)))",
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )
    sent = bytearray()
    for number in range(2000):
        block = bytes([number % 256]) * (number % 300)
        child.stdin.write(block)
        sent += block
        if number % 50 == 0:
            await child.stdin.drain()
    child.stdin.close()
    out, err = await child.communicate()
    assert out == sent
    assert err == str(len(sent)).encode()
    assert child.returncode == 0


@pytest.mark.usefixtures("child_watcher")
async def test_a_subprocess_that_reads_nothing(loop):
    child = await asyncio.create_subprocess_exec(
        "/bin/true", stdin=subprocess.PIPE
    )
    await child.wait()
    child.stdin.write(bytes(MANY))
    with pytest.raises((BrokenPipeError, ConnectionResetError)):
        await child.stdin.drain()
        await asyncio.sleep(0.01)
        await child.stdin.drain()
