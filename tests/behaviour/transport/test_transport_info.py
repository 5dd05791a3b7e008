"""What a stream transport says about itself: names, its socket, its repr."""

from __future__ import annotations

import asyncio
import socket
import unittest.mock

import pytest
from net_helpers import (
    Recorder,
    every_kind,
    every_tcp_kind,
    link,
    tcp_socketpair,
)


@every_kind
async def test_unknown_key_gives_the_default(transport_pair):
    c = await transport_pair()
    assert c.transport.get_extra_info("nothing") is None
    assert c.transport.get_extra_info("nothing", 7) == 7
    assert c.transport.get_extra_info("x", default="d") == "d"
    assert c.transport.get_extra_info("sslcontext") is None
    assert c.transport.get_extra_info("ssl_object") is None


@every_tcp_kind
async def test_peername_of_a_peer_that_left(transport_pair):
    c = await transport_pair()
    expected = c.peer.sock.getsockname()
    c.peer.reset()
    await c.protocol.wait_lost()
    assert c.transport.get_extra_info("peername") == expected


@pytest.mark.parametrize("made_by", ["client", "sock", "server", "accepted"])
async def test_nodelay_on_sockets_of_every_origin(loop, loop_kind, made_by):
    """asyncio passes over sockets whose proto is 0; fastloop does not."""
    if loop_kind == "asyncio" and made_by in ("sock", "accepted"):
        pytest.skip("asyncio sets no TCP_NODELAY where sock.proto is 0")
    if made_by in ("client", "server"):
        async with link(f"tcp-{made_by}") as c:
            sock = c.transport.get_extra_info("socket")
            assert sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY)
        return
    near, peer = tcp_socketpair()
    assert near.proto == 0
    near.setblocking(False)
    if made_by == "sock":
        connect = loop.create_connection(Recorder, sock=near)
    else:
        connect = loop.connect_accepted_socket(Recorder, near)
    with peer:
        transport, protocol = await connect
        assert near.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY)
        transport.abort()
        await protocol.wait_lost()


@every_kind
async def test_repr_shows_the_state(transport_pair):
    c = await transport_pair()
    fd = c.transport.get_extra_info("socket").fileno()
    text = repr(c.transport)
    assert text.startswith("<") and text.endswith(">")
    assert f"fd={fd}" in text
    assert "read=polling" in text
    assert "write=<idle, bufsize=0>" in text
    c.transport.pause_reading()
    assert "read=idle" in repr(c.transport)
    c.transport.resume_reading()
    c.shrink()
    c.fill()
    assert "write=<polling, bufsize=" in repr(c.transport)
    c.transport.close()
    assert "closing" in repr(c.transport)
    c.transport.abort()
    await c.protocol.wait_lost()
    assert "closed" in repr(c.transport)


@every_kind
async def test_protocol_methods_are_looked_up_at_each_call(transport_pair):
    """Tests of frameworks replace data_received on a live protocol."""
    c = await transport_pair()
    await c.peer.send(b"a")
    await c.protocol.wait_data(1)
    seen = asyncio.get_running_loop().create_future()
    c.protocol.data_received = seen.set_result
    await c.peer.send(b"b")
    assert await seen == b"b"
    del c.protocol.data_received
    await c.peer.send(b"c")
    assert await c.protocol.wait_data(2) == b"ac"


@pytest.mark.parametrize("patched", [asyncio.Transport, asyncio.BaseTransport])
@every_kind
async def test_a_patched_base_class_answers(transport_pair, patched):
    """Suites put a mock there, which may call the original.

    asyncio's transports inherit the method.
    """
    c = await transport_pair()
    original = asyncio.BaseTransport.get_extra_info

    def noted(self, name, default=None):
        return name, original(self, name, default)

    with unittest.mock.patch.object(
        patched, "get_extra_info", return_value="mocked"
    ) as mock:
        assert c.transport.get_extra_info("peername") == "mocked"
        mock.assert_called_once_with("peername")
    with unittest.mock.patch.object(patched, "get_extra_info", noted):
        _, sock = c.transport.get_extra_info("socket")
        for name, get in [
            ("peername", sock.getpeername),
            ("sockname", sock.getsockname),
        ]:
            assert c.transport.get_extra_info(name) == (name, get())
        answer = c.transport.get_extra_info("other", default=5)
        assert answer == ("other", 5)
    assert c.transport.get_extra_info("sockname") == sock.getsockname()


@every_kind
async def test_the_socket_of_a_closed_transport(transport_pair, kind):
    c = await transport_pair()
    c.transport.abort()
    await c.protocol.wait_lost()
    sock = c.transport.get_extra_info("socket")
    assert sock.fileno() == -1
    unix = kind == "unix"
    assert sock.family == (socket.AF_UNIX if unix else socket.AF_INET)
    assert sock.type == socket.SOCK_STREAM
    assert sock is c.transport.get_extra_info("socket")
    assert "fd=-1" in repr(sock)
    assert not hasattr(sock, "nothing")
    with pytest.raises(OSError, match="Bad file descriptor"):
        sock.shutdown(socket.SHUT_RD)
