"""What a stream transport says about itself: names, its socket, its repr."""

from __future__ import annotations

import asyncio
import gc
import os
import socket
import threading
import unittest.mock
import weakref

import pytest
from hosts import FAMILIES
from net_helpers import (
    Recorder,
    end,
    every_kind,
    every_tcp_kind,
    link,
    no_free_fd,
    spin,
    tcp_socketpair,
)
from patience import PATIENCE


@every_kind
async def test_a_key_whose_comparison_replaces_the_extra_info(transport_pair):
    c = await transport_pair()

    class Key(str):
        __slots__ = ()

        def __eq__(self, other):
            c.transport._extra = {}
            return False

        def __hash__(self):
            return hash("peername")

    c.transport.get_extra_info("peername")
    assert c.transport.get_extra_info(Key("other"), "none") == "none"
    assert c.transport.get_extra_info("unknown", "none") == "none"


async def test_a_closed_transport_tells_its_sockets_family(host, address_kind):
    await host.serve()
    ends = await host.visit()
    await end(*ends)
    for protocol in ends:
        sock = protocol.transport.get_extra_info("socket")
        assert sock.family == FAMILIES[address_kind]
        assert sock.type == socket.SOCK_STREAM
        assert sock.fileno() == -1


@every_kind
async def test_a_closed_transport_has_a_socket_when_no_fd_is_free(
    transport_pair,
):
    c = await transport_pair()
    c.transport.abort()
    await c.protocol.wait_lost()
    with no_free_fd():
        sock = c.transport.get_extra_info("socket")
    assert sock.fileno() == -1
    assert sock is c.transport.get_extra_info("socket")
    assert "fd=-1" in repr(sock)
    with pytest.raises(OSError):
        sock.shutdown(socket.SHUT_RD)


@every_kind
async def test_socket_values_are_read_anew_each_time(transport_pair):
    c = await transport_pair()
    sock = c.transport.get_extra_info("socket")
    before = sock.family, sock.type, sock.proto
    assert sock.getpeername() == c.peer.sock.getsockname()
    size = sock.getsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF)
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 4 * size)
    assert sock.getsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF) > size
    c.transport.close()
    await c.protocol.wait_lost()
    assert sock.fileno() == -1
    with pytest.raises(OSError, match="Bad file descriptor"):
        sock.getpeername()
    assert (sock.family, sock.type, sock.proto) == before
    assert not hasattr(sock, "nothing")


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


@every_tcp_kind
async def test_nodelay_is_set(transport_pair):
    c = await transport_pair()
    sock = c.transport.get_extra_info("socket")
    assert sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY)


@pytest.mark.parametrize("made_by", ["sock", "server", "accepted"])
async def test_nodelay_on_sockets_of_every_origin(loop, loop_kind, made_by):
    """asyncio passes over sockets whose proto is 0; fastloop does not."""
    if loop_kind == "asyncio" and made_by != "server":
        pytest.skip("asyncio sets no TCP_NODELAY where sock.proto is 0")

    if made_by == "server":
        listener = socket.create_server(("127.0.0.1", 0))
        protocol = Recorder()
        server = await loop.create_server(lambda: protocol, sock=listener)
        peer = socket.create_connection(listener.getsockname())
        await protocol.wait_for("made")
        transport = protocol.transport
        server.close()
    else:
        near, peer = tcp_socketpair()
        assert near.proto == 0
        near.setblocking(False)
        if made_by == "sock":
            connect = loop.create_connection(Recorder, sock=near)
        else:
            connect = loop.connect_accepted_socket(Recorder, near)
        transport, protocol = await connect
    sock = transport.get_extra_info("socket")
    nodelay = sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY)
    transport.abort()
    await protocol.wait_lost()
    peer.close()
    if loop_kind == "fastloop" or sock.proto:
        assert nodelay


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
async def test_transports_are_not_made_by_hand(transport_pair):
    """Nobody gets a transport in a half-made state."""
    c = await transport_pair()
    cls = type(c.transport)
    with pytest.raises(TypeError):
        cls(1, 2, 3, 4, 5, 6, 7, 8, 9)


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


@pytest.mark.parametrize("kind", ["tcp-server"])
async def test_a_socket_object_that_cannot_be_made(
    transport_pair, loop, loop_kind, monkeypatch
):
    """The descriptor stays the transport's."""
    if loop_kind == "asyncio":
        pytest.skip("asyncio has its socket object from the start")

    class Refusing(socket.socket):
        def gettimeout(self):
            raise OSError("not today")

    c = await transport_pair()
    monkeypatch.setattr("fastloop._core_helpers.socket_type", Refusing)
    with pytest.raises(OSError, match="not today"):
        c.transport.get_extra_info("socket")
    gc.collect()
    monkeypatch.undo()
    c.transport.write(b"still here")
    assert await c.peer.recv_exactly(10) == b"still here"
    sock = c.transport.get_extra_info("socket")
    assert sock.getpeername() == c.peer.sock.getsockname()


@pytest.fixture
def slow_socket(loop_kind, monkeypatch):
    """Makes socket objects that call `meanwhile` before they are done."""
    if loop_kind == "asyncio":
        pytest.skip("asyncio has its socket object from the start")

    class Slow(socket.socket):
        made = weakref.WeakSet()

        def gettimeout(self):
            self.made.add(self)
            if len(self.made) == 1:
                self.meanwhile()
            return super().gettimeout()

    def install(meanwhile):
        Slow.meanwhile = staticmethod(meanwhile)
        monkeypatch.setattr("fastloop._core_helpers.socket_type", Slow)
        return Slow.made

    return install


async def test_get_extra_info_nested_in_the_making_of_the_socket(slow_socket):
    """By another thread, say, or a signal's handler: one owns it."""
    found = []
    async with link("tcp-server") as c:
        made = slow_socket(
            lambda: found.append(c.transport.get_extra_info("socket"))
        )
        found.append(c.transport.get_extra_info("socket"))
        assert len(found) == 2
        assert {shown._sock for shown in found} == {c.transport._sock}
        gc.collect()
        assert [sock.fileno() for sock in made] == [found[0].fileno()]
        c.transport.write(b"still here")
        assert await c.peer.recv_exactly(10) == b"still here"
    assert [sock.fileno() for sock in made] == [-1]


def test_closed_while_the_socket_is_made(run, slow_socket):
    """In another thread: the next file with that fd is not closed."""
    begun, go_on = threading.Event(), threading.Event()

    def meanwhile():
        begun.set()
        assert go_on.wait(PATIENCE)

    async def ask():
        loop = asyncio.get_running_loop()
        async with link("tcp-server") as c:
            slow_socket(meanwhile)
            number = c.transport._sock_fd
            asked = loop.run_in_executor(
                None, c.transport.get_extra_info, "socket"
            )
            await loop.run_in_executor(None, begun.wait, PATIENCE)
            c.transport.abort()
            await spin(lambda: c.transport.get_protocol() is None)
            os.dup2(c.peer.sock.fileno(), number)
            go_on.set()
            assert (await asked).fileno() == -1
            return number, weakref.ref(c.transport)

    number, transport = run(ask())
    gc.collect()
    assert transport() is None
    os.close(number)


def through_a_patch(transport):
    original = asyncio.BaseTransport.get_extra_info
    with unittest.mock.patch.object(
        asyncio.BaseTransport,
        "get_extra_info",
        lambda self, name, default=None: original(self, name, default),
    ):
        return transport.get_extra_info("socket")


@pytest.mark.parametrize(
    "find",
    [
        lambda transport: transport.get_extra_info("socket"),
        lambda transport: transport._extra["socket"],
        lambda transport: transport._sock,
        through_a_patch,
    ],
)
@every_kind
async def test_sends_on_the_socket_follow_earlier_writes(transport_pair, find):
    c = await transport_pair()
    c.transport.write(b"one ")
    c.transport.write(b"two ")
    with find(c.transport).dup() as sock:
        sock.send(b"three")
    assert await c.peer.recv_exactly(13) == b"one two three"


@pytest.mark.parametrize("patched", [asyncio.Transport, asyncio.BaseTransport])
@every_kind
async def test_a_patched_base_class_answers(transport_pair, patched):
    """Suites put a mock there: asyncio's transports inherit the method."""
    c = await transport_pair()
    with unittest.mock.patch.object(
        patched, "get_extra_info", return_value="mocked"
    ) as mock:
        assert c.transport.get_extra_info("peername") == "mocked"
        mock.assert_called_once_with("peername")
    sock = c.transport.get_extra_info("socket")
    assert c.transport.get_extra_info("sockname") == sock.getsockname()


@every_kind
async def test_a_patch_may_call_the_original(transport_pair):
    original = asyncio.BaseTransport.get_extra_info

    def noted(self, name, default=None):
        return name, original(self, name, default)

    c = await transport_pair()
    with unittest.mock.patch.object(
        asyncio.BaseTransport, "get_extra_info", noted
    ):
        _, sock = c.transport.get_extra_info("socket")
        for name, get in [
            ("peername", sock.getpeername),
            ("sockname", sock.getsockname),
        ]:
            assert c.transport.get_extra_info(name) == (name, get())
        answer = c.transport.get_extra_info("other", default=5)
        assert answer == ("other", 5)
