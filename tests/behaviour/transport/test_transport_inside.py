"""Private attributes of transports that programs look at, and set.

asyncio's transports are Python objects: tests count what waits in _buffer,
tools wrap methods on an instance, some programs put a protocol in by hand.
"""

from __future__ import annotations

import collections
import gc
import socket
import sys

import pytest
from net_helpers import every_kind

WAITING = bytearray if sys.version_info < (3, 12) else collections.deque
#: What an instance may be given in the place of its methods.
METHODS = """
    write writelines write_eof close abort is_closing get_extra_info
    pause_reading resume_reading set_protocol get_write_buffer_size
""".split()


@every_kind
async def test_the_buffer_attribute_has_the_unsent_bytes(transport_pair):
    c = await transport_pair()
    assert type(c.transport._buffer) is WAITING
    assert len(c.transport._buffer) == 0
    c.shrink()
    total = c.fill(bytes(range(256)) * 100)
    c.transport.write(b"last")
    waiting = c.transport._buffer
    data = b"".join([waiting] if WAITING is bytearray else waiting)
    assert len(data) == c.transport.get_write_buffer_size()
    assert data.endswith(bytes(range(200, 256)) + b"last")
    arrived = await c.peer.recv_exactly(total + 4)
    assert arrived.endswith(data)
    assert not c.transport._buffer


@pytest.mark.parametrize("kind", ["unix"])
async def test_methods_replaced_on_the_instance(transport_pair):
    c = await transport_pair()
    for name in METHODS:
        seen = []
        setattr(c.transport, name, seen.append)
        assert name in vars(c.transport)
        getattr(c.transport, name)("called")
        delattr(c.transport, name)
        assert name not in vars(c.transport)
        assert getattr(c.transport, name) is not None
        c.transport.write(b"x")
        assert await c.peer.recv() == b"x"
        assert seen == ["called"]


@every_kind
async def test_extra_info_by_hand(transport_pair):
    c = await transport_pair()
    extra = c.transport._extra
    assert {"socket", "sockname", "peername"} <= set(extra)
    sock = c.transport.get_extra_info("socket")
    assert extra["socket"] is sock
    assert extra["sockname"] == sock.getsockname()
    extra["peername"] = "someone"
    extra["more"] = 5
    assert c.transport.get_extra_info("peername") == "someone"
    assert c.transport.get_extra_info("more") == 5
    c.transport._extra = {"peername": "another"}
    assert c.transport.get_extra_info("peername") == "another"
    assert c.transport.get_extra_info("more") is None


@every_kind
async def test_sock_fd_of_a_closed_transport(transport_pair):
    c = await transport_pair()
    number = c.transport._sock_fd
    assert number == c.transport.get_extra_info("socket").fileno()
    c.transport.close()
    await c.protocol.wait_lost()
    assert c.transport._sock_fd == number
    assert f"closed fd={number}>" in repr(c.transport)
    assert c.transport._sock is None


class NoProtocol:
    """What a broken factory makes."""


async def connect_tcp(loop, factory):
    with socket.create_server(("127.0.0.1", 0)) as listener:
        await loop.create_connection(factory, *listener.getsockname())


async def connect_unix(loop, factory):
    near, far = socket.socketpair()
    with far, near:
        await loop.create_unix_connection(factory, sock=near)


async def bind_datagrams(loop, factory):
    await loop.create_datagram_endpoint(factory, ("127.0.0.1", 0))


@pytest.mark.filterwarnings("ignore:unclosed:ResourceWarning")
@pytest.mark.parametrize(
    "made", [None, 5, NoProtocol()], ids=["None", "5", "object"]
)
@pytest.mark.parametrize("how", [connect_tcp, connect_unix, bind_datagrams])
def test_a_factory_that_makes_no_protocol(run, loop, how, made):
    """The caller gets an error, and nothing is connected."""

    async def main():
        try:
            await how(loop, lambda: made)
        except AttributeError as exc:
            return str(exc)

    text = run(main())
    gc.collect()
    assert text.endswith("has no attribute 'connection_made'")
