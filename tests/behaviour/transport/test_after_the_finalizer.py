"""Streams that are used after their finalizer has run.

The garbage that a stream belongs to may have other finalizers, which run
after the stream's own and have it still; one may also keep it for good.
"""

from __future__ import annotations

import asyncio
import gc
import socket
import warnings
from typing import Any

import pytest
from net_helpers import iterations
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
