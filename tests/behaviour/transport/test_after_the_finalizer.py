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
    "writelines": lambda t: t.writelines([b"x", b"x"]),
    "write_eof": lambda t: (t.write(b"x"), t.write_eof()),
    "close": lambda t: (t.write(b"x"), t.close()),
    "abort": lambda t: (t.write(b"x"), t.abort()),
    "resume_reading": lambda t: (t.pause_reading(), t.resume_reading()),
    "set_protocol": lambda t: t.set_protocol(asyncio.Protocol()),
    "limits": lambda t: t.set_write_buffer_limits(0),
    "the socket": lambda t: t.get_extra_info("socket").fileno(),
    "names": lambda t: [
        t.get_extra_info(f"{n}name") for n in ("sock", "peer")
    ],
    "repr": lambda t: (repr(t), t.is_reading(), t.get_write_buffer_size()),
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
    """It is used in the finalizer, and again later: that kept it."""
    use = Operating(name)
    kept: list[Any] = []
    peer = await collected(lambda t: (use(t), kept.append(t)))
    received = peer.receive(1000)
    assert received.strip(b"x") == b""  # where its user was first
    assert use.calls == TIMES
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
