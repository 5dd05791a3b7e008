"""connect_read_pipe and connect_write_pipe: what they take, how they end."""

from __future__ import annotations

import asyncio
import os
import pty
import socket
import tempfile

import pytest
from net_helpers import spin, turns


class Recorder(asyncio.Protocol):
    """Writes down what a pipe's protocol is told."""

    def __init__(self):
        self.events = []

    def connection_made(self, transport):
        self.transport = transport
        self.events.append("made")

    def data_received(self, data):
        self.events.append(bytes(data))

    def eof_received(self):
        self.events.append("eof")

    def pause_writing(self):
        self.events.append("pause")

    def resume_writing(self):
        self.events.append("resume")

    def connection_lost(self, exc):
        self.events.append(("lost", exc))

    @property
    def lost(self):
        return any(type(event) is tuple for event in self.events)

    @property
    def data(self):
        return b"".join(e for e in self.events if type(e) is bytes)


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
def test_reading(run, loop, tmp_path, make):
    read, write = make(tmp_path)

    async def main():
        transport, protocol = await loop.connect_read_pipe(Recorder, read)
        assert transport.get_extra_info("pipe") is read
        assert not os.get_blocking(read.fileno())
        os.write(write.fileno(), b"hello")
        await spin(lambda: protocol.data == b"hello")
        transport.pause_reading()
        os.write(write.fileno(), b"more")
        await turns()
        assert protocol.data == b"hello"
        transport.resume_reading()
        await spin(lambda: protocol.data == b"hellomore")
        transport.close()
        await spin(lambda: protocol.lost)
        assert protocol.events[-1] == ("lost", None)
        assert read.fileno() == -1 if make is open_socket else read.closed

    with write:
        run(main())


@every_pair
def test_writing(run, loop, tmp_path, make):
    read, write = make(tmp_path)

    async def main():
        transport, protocol = await loop.connect_write_pipe(Recorder, write)
        transport.write(b"hello")
        transport.writelines([b" ", b"there"])
        got = b""
        while len(got) < 11:
            got += os.read(read.fileno(), 99)
        assert got == b"hello there"
        transport.close()
        await spin(lambda: protocol.lost)
        assert protocol.events == ["made", ("lost", None)]

    with read:
        run(main())


def test_the_end_of_a_pipe(run, loop, tmp_path):
    read, write = open_pipe(tmp_path)

    async def main():
        _, protocol = await loop.connect_read_pipe(Recorder, read)
        write.write(b"last")
        write.close()
        await spin(lambda: protocol.lost)
        assert protocol.events == ["made", b"last", "eof", ("lost", None)]

    run(main())


@pytest.mark.parametrize("make", [open_pipe, open_fifo, open_socket])
def test_a_reader_that_dies_is_noticed(run, loop, tmp_path, make):
    """Without a write: the pipe itself tells."""
    read, write = make(tmp_path)

    async def main():
        _, protocol = await loop.connect_write_pipe(Recorder, write)
        read.close()
        await spin(lambda: protocol.lost)
        assert protocol.events == ["made", ("lost", None)]

    run(main())


def test_a_reader_that_dies_with_data_waiting(run, loop, tmp_path):
    read, write = open_pipe(tmp_path)

    async def main():
        transport, protocol = await loop.connect_write_pipe(Recorder, write)
        transport.write(bytes(1 << 20))
        assert protocol.events == ["made", "pause"]
        read.close()
        await spin(lambda: protocol.lost)
        assert isinstance(protocol.events[-1][1], BrokenPipeError)

    run(main())


def test_a_full_pipe(run, loop, tmp_path):
    read, write = open_pipe(tmp_path)

    async def main():
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
        assert "resume" in protocol.events
        assert protocol.events[-1] == ("lost", None)

    with read:
        run(main())


def test_character_devices(run, loop):
    async def main():
        transport, protocol = await loop.connect_write_pipe(
            Recorder, open("/dev/null", "wb", 0)
        )
        transport.write(b"gone")
        assert transport.get_write_buffer_size() == 0
        transport.close()
        await spin(lambda: protocol.lost)
        assert protocol.events == ["made", ("lost", None)]

    run(main())


@pytest.mark.parametrize("way", ["read", "write"])
def test_what_is_no_pipe(run, loop, way):
    connect = getattr(loop, f"connect_{way}_pipe")
    with tempfile.TemporaryFile() as file:
        with pytest.raises(ValueError, match="pipes"):
            run(connect(Recorder, file))
        assert not file.closed


def test_an_aborted_pipe(run, loop, tmp_path):
    read, write = open_pipe(tmp_path)

    async def main():
        transport, protocol = await loop.connect_write_pipe(Recorder, write)
        transport.write(bytes(1 << 20))
        transport.abort()
        await spin(lambda: protocol.lost)
        assert protocol.events[-1] == ("lost", None)
        assert write.closed

    with read:
        run(main())
