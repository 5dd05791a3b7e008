"""What a transport does once its loop was closed under it."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import socket
import struct
from functools import partial

import pytest
from net_helpers import MIB, Recorder, tcp_socketpair

closed = partial(pytest.raises, RuntimeError, match="Event loop is closed")
fine = contextlib.nullcontext
pytestmark = pytest.mark.filterwarnings("ignore::ResourceWarning")


@pytest.fixture
def left(loop_factory):
    """Return what opens a transport and closes its loop: it, and its peer."""

    def leave(kind="stream", before=lambda transport, far: None):
        loop = loop_factory()
        near, far = tcp_socketpair()
        near.setblocking(False)
        stack.enter_context(far)
        opening = {
            "stream": lambda: loop.create_connection(Recorder, sock=near),
            "datagram": lambda: loop.create_datagram_endpoint(
                asyncio.DatagramProtocol, local_addr=("127.0.0.1", 0)
            ),
            "read pipe": lambda: loop.connect_read_pipe(Recorder, near),
            "write pipe": lambda: loop.connect_write_pipe(Recorder, near),
        }[kind]
        transport, _ = loop.run_until_complete(opening())
        before(transport, far)
        loop.close()
        return transport, far

    with contextlib.ExitStack() as stack:
        yield leave
    gc.collect()


def write_much(transport, far):
    transport.write(bytes(64 * MIB))


def pause(transport, far):
    transport.pause_reading()


def close(transport, far):
    transport.close()


CALLS = [
    # kind, what was done before, the call, what it raises, closing after it
    ("stream", None, "close", (), closed, True),
    ("stream", None, "abort", (), closed, True),
    ("stream", write_much, "close", (), fine, True),
    ("stream", write_much, "abort", (), closed, True),
    ("datagram", None, "close", (), closed, True),
    ("datagram", None, "abort", (), closed, True),
    ("read pipe", None, "close", (), closed, True),
    ("write pipe", None, "close", (), closed, True),
    ("write pipe", None, "abort", (), closed, True),
    ("stream", pause, "resume_reading", (), closed, False),
    ("stream", None, "write", (bytes(64 * MIB),), closed, False),
    ("stream", None, "writelines", ([bytes(64 * MIB)],), closed, False),
    ("stream", write_much, "write", (b"abc",), fine, False),
    ("stream", close, "write", (b"abc",), fine, True),
    ("stream", None, "write", (b"data",), fine, False),
    ("stream", None, "is_reading", (), fine, False),
    ("stream", None, "__repr__", (), fine, False),
    ("stream", None, "get_extra_info", ("peername",), fine, False),
    ("stream", None, "get_write_buffer_size", (), fine, False),
]


@pytest.mark.parametrize(
    ("kind", "before", "method", "args", "raises", "closing"), CALLS
)
def test_calls(left, kind, before, method, args, raises, closing):
    transport, _ = left(kind, before or (lambda *_: None))
    with raises():
        getattr(transport, method)(*args)
    assert transport.is_closing() == closing
    if kind == "stream":
        assert transport.get_protocol().names == ["made"] + (
            ["pause"] if before is write_much else []
        )
        if method == "abort":
            assert transport.get_write_buffer_size() == 0


@pytest.mark.parametrize(
    ("method", "data"), [("write", b"x"), ("writelines", [b"x"])]
)
def test_a_write_that_fails(left, method, data):
    def reset(transport, far):
        linger = struct.pack("ii", 1, 0)
        far.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, linger)
        far.close()

    transport, _ = left(before=reset)
    with closed():
        getattr(transport, method)(data)
