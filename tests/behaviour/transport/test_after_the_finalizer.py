"""Streams that are used after their finalizer has run.

The garbage that a stream belongs to may have other finalizers, which run
after the stream's own and have it still; one may also keep it for good.
A program may also call the finalizer itself, in any callback.
"""

from __future__ import annotations

import asyncio
import contextlib
import gc
import logging
import socket
import sys
import warnings
from collections.abc import AsyncIterator
from typing import Any

import pytest
from datagram_helpers import Datagrams, endpoint, must_pause, plain
from net_helpers import MIB, Recorder, iterations
from patience import PATIENCE
from write_helpers import Peer, in_callbacks

OPERATIONS = {
    "write": lambda t: t.write(b"x"),
    "write a bytearray": lambda t: t.write(bytearray(b"x")),
    "writelines": lambda t: t.writelines([b"x", b"x"]),
    "write_eof": lambda t: t.write_eof(),
    "can_write_eof": lambda t: t.can_write_eof(),
    "close": lambda t: t.close(),
    "abort": lambda t: t.abort(),
    "is_closing": lambda t: t.is_closing(),
    "pause_reading": lambda t: t.pause_reading(),
    "resume_reading": lambda t: t.resume_reading(),
    "is_reading": lambda t: t.is_reading(),
    "get_protocol": lambda t: t.get_protocol(),
    "set_protocol": lambda t: t.set_protocol(asyncio.Protocol()),
    "set_write_buffer_limits": lambda t: t.set_write_buffer_limits(0),
    "get_write_buffer_limits": lambda t: t.get_write_buffer_limits(),
    "get_write_buffer_size": lambda t: t.get_write_buffer_size(),
    "the socket": lambda t: t.get_extra_info("socket").fileno(),
    "sockname": lambda t: t.get_extra_info("sockname"),
    "peername": lambda t: t.get_extra_info("peername"),
    "repr": repr,
    "write, then close": lambda t: (t.write(b"x"), t.close()),
    "write, then abort": lambda t: (t.write(b"x"), t.abort()),
    "write, then write_eof": lambda t: (t.write(b"x"), t.write_eof()),
}
TIMES = 3


class Node(asyncio.Protocol):
    """A protocol that can be in a cycle."""

    user: Any = None


class User:
    """Has the transport, and uses or keeps it in its finalizer."""

    def __init__(self, transport: Any, use: Any) -> None:
        self.transport = transport
        self.use = use

    def __del__(self) -> None:
        self.use(self.transport)


class Operating:
    """Makes an operation several times, and notes what it raised."""

    def __init__(self, name: str) -> None:
        self.operation = OPERATIONS[name]
        self.raised: list[str] = []
        self.calls = 0

    def __call__(self, transport: Any) -> None:
        for _ in range(TIMES):
            self.calls += 1
            try:
                self.operation(transport)
            except Exception as exc:
                self.raised.append(repr(exc))


async def collected(use: Any) -> Peer:
    """Have a paused stream and its user collected inside a callback.

    The stream has written several times a callback before.  Returns its peer.
    """
    loop = asyncio.get_running_loop()
    with socket.create_server(("127.0.0.1", 0)) as listener:
        transport, protocol = await loop.create_connection(
            Node, *listener.getsockname()
        )
        peer = Peer(listener.accept()[0])
    for _ in range(TIMES):
        await in_callbacks(lambda t=transport: (t.write(b"h"), t.write(b"b")))
    assert peer.receive(2 * TIMES) == b"hb" * TIMES
    transport.pause_reading()
    await iterations()
    protocol.user = User(transport, use)
    del transport, protocol

    def collect() -> None:
        gc.collect()
        # What was freed is overwritten.
        assert len([bytearray(size) for size in range(2000)]) == 2000

    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ResourceWarning)
        await in_callbacks(collect)
        await iterations()
    return peer


@pytest.mark.parametrize("name", OPERATIONS)
async def test_a_collected_stream_ends_whatever_a_finalizer_does_with_it(
    name, loop_kind
):
    use = Operating(name)
    peer = await collected(use)
    received = peer.receive(1000)
    assert received.strip(b"x") == b""  # where its user was first
    assert use.calls == TIMES
    if loop_kind == "fastloop":
        assert use.raised == []
    peer.sock.close()
    await iterations()


@pytest.mark.parametrize("name", OPERATIONS)
async def test_a_stream_resurrected_by_a_finalizer_stays_closed(
    name, loop_kind
):
    kept: list[Any] = []
    peer = await collected(kept.append)
    assert peer.receive(1000) == b""
    use = Operating(name)
    await in_callbacks(lambda: use(kept[0]), lambda: use(kept[0]))
    await iterations()
    if loop_kind == "fastloop":
        assert use.raised == []
        assert kept[0].is_closing()
    kept.clear()
    gc.collect()
    peer.sock.close()
    await iterations()


# --- called by the program ---------------------------------------------------


def finalize(transport: Any) -> None:
    """Call a finalizer as the program's code may."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ResourceWarning)
        transport.__del__()


class Finalizing(logging.Handler):
    """Calls a transport's finalizer when a message is logged."""

    def __init__(self, text: str) -> None:
        super().__init__(logging.DEBUG)
        self.text = text
        self.transport: Any = None
        self.found = 0

    def emit(self, record: logging.LogRecord) -> None:
        if self.text in record.getMessage() and self.transport:
            self.found += 1
            finalize(self.transport)


@pytest.fixture
def finalizing(request):
    """Finalize the transport that a test sets, when asyncio logs a text."""
    handler = Finalizing(request.param)
    logger = logging.getLogger("asyncio")
    level = logger.level
    logger.setLevel(logging.DEBUG)
    logger.addHandler(handler)
    yield handler
    logger.removeHandler(handler)
    logger.setLevel(level)


@contextlib.asynccontextmanager
async def opened(protocol: Any) -> AsyncIterator[tuple[Any, socket.socket]]:
    """Open a connection; yields its transport and the far end."""
    near, far = socket.socketpair()
    near.setblocking(False)
    far.setblocking(False)
    transport, _ = await asyncio.wait_for(
        asyncio.get_running_loop().create_connection(
            lambda: protocol, sock=near
        ),
        PATIENCE,
    )
    await iterations()
    yield transport, far
    transport.abort()  # asyncio's does not know that it has ended
    await iterations()
    far.close()


async def test_a_stream_ends_in_connection_made(reports):
    """The call that opens the connection does not wait for ever."""
    protocol = Recorder(made=lambda p: finalize(p.transport))
    async with opened(protocol) as (transport, _):
        assert transport is protocol.transport
    reports.clear()  # asyncio cannot register the fd


async def test_a_stream_ends_in_connection_lost():
    protocol = Recorder(lost=lambda p, exc: finalize(p.transport))
    async with opened(protocol) as (transport, _):
        transport.abort()
        await protocol.wait_lost()
        await iterations()
    assert protocol.names.count("lost") == 1


@pytest.mark.parametrize("finalizing", ["received EOF"], indirect=True)
async def test_a_stream_ends_while_its_eof_is_logged(finalizing):
    asyncio.get_running_loop().set_debug(True)
    async with opened(asyncio.Protocol()) as (finalizing.transport, far):
        far.shutdown(socket.SHUT_WR)
        await iterations(10)
    assert finalizing.found == 1


@pytest.mark.skipif(
    sys.version_info < (3, 12), reason="only C has buffers before 3.12"
)
async def test_a_stream_ends_when_its_buffer_is_released_at_eof():
    class Buffer:
        released = 0

        def __len__(self) -> int:
            return 100

        def __buffer__(self, flags: int) -> memoryview:
            return memoryview(bytearray(100))

        def __release_buffer__(self, view: memoryview) -> None:
            self.released += 1
            finalize(transport)

    class Buffered(asyncio.BufferedProtocol):
        def get_buffer(self, sizehint: int) -> Any:
            return buffer

    buffer = Buffer()
    async with opened(Buffered()) as (transport, far):
        far.shutdown(socket.SHUT_WR)
        await iterations(10)
    assert buffer.released == 1


async def test_a_stream_ends_while_sendfile_learns_of_room(reports):
    class Waiter:
        calls = 0

        def done(self) -> bool:
            return False

        def set_result(self, result: object) -> None:
            self.calls += 1
            finalize(transport)
            raise ValueError

        def set_exception(self, exc: BaseException) -> None:
            pass

    loop = asyncio.get_running_loop()
    waiter = Waiter()
    async with opened(asyncio.Protocol()) as (transport, far):
        transport.write(bytes(4 * MIB))
        transport._empty_waiter = waiter
        while not waiter.calls:
            await loop.sock_recv(far, MIB)
    assert waiter.calls == 1
    assert [type(report["exception"]) for report in reports] == [ValueError]


@pytest.mark.parametrize("finalizing", ["resumes reading"], indirect=True)
async def test_datagrams_end_while_resuming_is_logged(finalizing, loop_kind):
    must_pause(loop_kind)
    asyncio.get_running_loop().set_debug(True)
    pause = Datagrams(datagram=lambda p, *_: p.transport.pause_reading())
    async with endpoint(pause) as p:
        with plain() as peer:
            for _ in range(4):
                peer.sendto(b"x", p.transport.get_extra_info("sockname"))
        await p.wait("datagram")
        finalizing.transport = p.transport
        p.transport.resume_reading()
        assert finalizing.found == 1
        await iterations()
        assert p.names.count("datagram") == 1
        p.transport.abort()  # as in opened()
        await iterations()
        p.events.append(("lost",))  # not to wait for it: it never comes
