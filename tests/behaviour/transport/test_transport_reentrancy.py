"""Protocols that write, close or clear their buffers where few do."""

from __future__ import annotations

import asyncio
import contextlib
import socket
from collections.abc import Callable
from typing import Any

import pytest
from net_helpers import BufferedRecorder, Recorder, iterations
from patience import PATIENCE

only_fastloop = pytest.mark.parametrize(
    "loop_kind", ["fastloop"], indirect=True
)

on_given_socket = pytest.mark.parametrize("kind", ["unix"])

BIG = 4 * 1024 * 1024


class _Link:
    """A transport of the loop under test and the plain socket at its end."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self.loop = loop
        self.transport: Any = None
        self.near, self.far = socket.socketpair()
        self.near.setblocking(False)
        self.far.setblocking(False)

    async def open(self, protocol: asyncio.Protocol) -> Any:
        self.transport, _ = await self.loop.create_connection(
            lambda: protocol, sock=self.near
        )
        return self.transport

    async def receive(self, size: int) -> bytes:
        got = bytearray()
        while len(got) < size:
            got += await self.loop.sock_recv(self.far, 1 << 18)
        return bytes(got)

    async def close(self) -> None:
        self.transport.abort()
        await iterations()
        self.far.close()


class _AskedSocket(socket.socket):
    """Runs a function of the test in fileno()."""

    def ask_by(self, asked: Callable[[], None]) -> None:
        """Have it run from now on; of an object of its own alone."""

        def fileno() -> int:
            asked()
            return super(_AskedSocket, self).fileno()

        self.fileno = fileno  # type: ignore[method-assign]


def write_twice(protocol: Any) -> None:
    """As soon as it may write again: the second one is corked."""
    protocol.transport.write(b"one")
    protocol.transport.write(b"two")


@on_given_socket
async def test_two_writes_in_resume_writing_leave_no_registration(
    transport_pair,
):
    c = await transport_pair(Recorder(resume=write_twice))
    c.transport.write(bytes(BIG))
    assert (await c.peer.recv_exactly(BIG + 6))[-6:] == b"onetwo"
    assert c.protocol.count("resume") == 1
    # A registration that stays would fire in every iteration.
    assert "write=<idle, bufsize=0>" in repr(c.transport)


@only_fastloop
@on_given_socket
@pytest.mark.parametrize("before", [0, 1, 2])
async def test_pause_writing_may_clear_the_buffer_that_is_written(
    transport_pair, before
):
    """Whether the write is sent, or corked after others of the callback.

    asyncio's transport still exports the buffer there from 3.12 on.
    """
    data = bytearray(BIG)
    c = await transport_pair(Recorder(pause=lambda p: data.clear()))
    for _ in range(before):
        c.transport.write(b"x")
    c.transport.write(data)
    assert c.protocol.count("pause") == 1
    assert data == b""
    await c.peer.recv_exactly(before + BIG)


def _raise(transport: Any) -> None:
    raise RuntimeError("after writing")


@pytest.mark.reports
@on_given_socket
@pytest.mark.parametrize(
    "fail",
    [
        _raise,
        lambda transport: transport._fatal_error(RuntimeError("written")),
        lambda transport: transport._force_close(RuntimeError("written")),
    ],
    ids=["raise", "_fatal_error", "_force_close"],
)
async def test_data_written_before_an_error_is_sent(transport_pair, fail):
    """A server's last words, header and body, and then its exception."""

    def answer(protocol, data):
        protocol.transport.write(b"header, ")
        protocol.transport.write(b"body")
        fail(protocol.transport)

    c = await transport_pair(Recorder(data=answer))
    await c.peer.send(b"request")
    assert await c.peer.recv_all() == b"header, body"


@only_fastloop
@pytest.mark.parametrize("end", ["close", "write_eof", "nothing"])
def test_resume_writing_may_leave_the_loop(
    loop: asyncio.AbstractEventLoop, end: str
) -> None:
    """asyncio's own transport fails an assertion in every iteration then."""

    def interrupt(protocol: Any) -> None:
        raise KeyboardInterrupt

    async def begin() -> None:
        await link.open(protocol)
        link.transport.write(bytes(BIG))
        if end != "nothing":
            getattr(link.transport, end)()

    link, protocol = _Link(loop), Recorder(resume=interrupt)
    loop.run_until_complete(begin())
    received = loop.create_task(link.receive(BIG))
    with pytest.raises(KeyboardInterrupt):
        loop.run_until_complete(received)
    loop.run_until_complete(received)
    loop.run_until_complete(iterations())
    assert "write=<polling" not in repr(link.transport)
    assert protocol.lost == (end == "close")
    if end != "nothing":
        assert link.far.recv(1) == b""
    loop.run_until_complete(link.close())


@pytest.mark.parametrize("buffered", [False, True])
@pytest.mark.parametrize("stream", [False, True])
async def test_a_socket_that_sets_a_protocol_in_recv(
    loop: asyncio.AbstractEventLoop, stream: bool, buffered: bool
) -> None:
    """The new protocol gets the data.  asyncio asks no socket."""
    link = _Link(loop)
    link.near = _AskedSocket(fileno=link.near.detach())
    first: Any = Recorder()
    if stream:
        first = asyncio.StreamReaderProtocol(asyncio.StreamReader())
    second: Any = BufferedRecorder() if buffered else Recorder()
    transport = await link.open(first)
    await iterations()
    link.near.ask_by(lambda: transport.set_protocol(second))
    link.far.send(b"data")
    await iterations(20)
    if transport.get_protocol() is second:
        assert second.data == b"data"
        assert stream or not first.data
    await link.close()


@only_fastloop
async def test_a_socket_that_writes_in_fileno_while_its_transport_writes(
    loop: asyncio.AbstractEventLoop,
) -> None:
    """The kernel has no room for the inner write, and then has some.

    asyncio asks no socket.
    """
    link = _Link(loop)
    link.near = _AskedSocket(fileno=link.near.detach())
    transport = await link.open(Recorder())
    await iterations()
    times = []

    def asked() -> None:
        times.append(1)
        if len(times) > 1:
            return
        filled = 0
        with contextlib.suppress(BlockingIOError):
            while True:
                filled += link.near.send(bytes(4096))
        transport.write(b"inner")
        while filled:
            filled -= len(link.far.recv(filled))

    link.near.ask_by(asked)
    data = b"outer" * (BIG // 5)
    transport.write(data)
    assert times
    receiving = link.receive(5 + len(data))
    assert await asyncio.wait_for(receiving, PATIENCE) == b"inner" + data
    await link.close()
