"""A socket object whose class has calls of its own: they are the ones made.

Proxies, tracers and tests wrap a socket this way, and asyncio's transports
call the object they were given.
"""

from __future__ import annotations

import array
import asyncio
import socket

import pytest
from datagram_helpers import Datagrams
from net_helpers import (
    listening_socket,
)


@pytest.mark.parametrize("call", ["accept", "connect"])
def test_ctrl_c_in_fileno_is_raised(loop, call):
    class Interrupted(socket.socket):
        ready = False

        def fileno(self):
            if self.ready:
                raise KeyboardInterrupt
            return super().fileno()

    with Interrupted(socket.AF_INET, socket.SOCK_STREAM) as sock:
        sock.setblocking(False)
        coro = (
            loop.sock_accept(sock)
            if call == "accept"
            else loop.sock_connect(sock, ("127.0.0.1", 9))
        )
        sock.ready = True
        with pytest.raises(KeyboardInterrupt):
            coro.send(None)
        sock.ready = False


@pytest.mark.parametrize(
    "data",
    [
        memoryview(array.array("i", range(20))),
        memoryview(bytes(range(80))).cast("B", (8, 10)),
    ],
    ids=["ints", "rows"],
)
async def test_sendall_of_items_larger_than_a_byte(loop, loop_kind, data):
    """send() takes a part and counts bytes."""
    if loop_kind == "asyncio":
        pytest.skip("asyncio counts items: it never ends")

    class Slow(socket.socket):
        def send(self, data):
            return super().send(data[:3])

    near, far = socket.socketpair()
    slow = Slow(fileno=near.detach())
    slow.setblocking(False)
    with slow, far:
        await loop.sock_sendall(slow, array.array("i"))
        await loop.sock_sendall(slow, data)
        assert far.recv(1000) == data.tobytes()


#: What replaced methods return that the system is not asked.
ANSWERS = {"getsockname": ("here", 1), "getpeername": ("there", 2)}


def replaced(where, name, *kind):
    """Make a socket with a method of its own, and a list of its calls."""
    calls = []

    def noting(self, *args):
        calls.append(args)
        if name in ANSWERS:
            return ANSWERS[name]
        return getattr(socket.socket, name)(self, *args)

    methods = {name: noting} if where == "class" else {}
    sock = type("Own", (socket.socket,), methods)(*kind)
    if where == "object":
        setattr(sock, name, noting.__get__(sock))
    return sock, calls


@pytest.mark.parametrize("where", ["class", "object"])
@pytest.mark.parametrize(
    "name",
    ["recv", "send", "getsockname", "getpeername", "setsockopt", "shutdown"],
)
async def test_a_transport_calls_a_replaced_method(loop, name, where):
    sock, calls = replaced(
        where, name, socket.AF_INET, socket.SOCK_STREAM, socket.IPPROTO_TCP
    )
    with listening_socket() as listener:
        sock.connect(listener.getsockname())
        far, _ = listener.accept()
    with far:
        far.sendall(b"word")
        reader, writer = await asyncio.open_connection(sock=sock)
        assert await reader.readexactly(4) == b"word"
        writer.write(b"word")
        writer.write_eof()
        assert calls
        if name in ANSWERS:
            assert writer.get_extra_info(name[3:]) == ANSWERS[name]
        writer.close()
        await writer.wait_closed()


@pytest.mark.parametrize("where", ["class", "object"])
@pytest.mark.parametrize("name", ["recvfrom", "sendto", "getsockname"])
async def test_an_endpoint_calls_a_replaced_method(loop, name, where):
    sock, calls = replaced(where, name, socket.AF_INET, socket.SOCK_DGRAM)
    sock.bind(("127.0.0.1", 0))
    here, protocol = await loop.create_datagram_endpoint(Datagrams, sock=sock)
    here.sendto(b"word", socket.socket.getsockname(sock))
    assert await protocol.wait("datagram") == b"word"
    assert calls
    if name in ANSWERS:
        assert here.get_extra_info(name[3:]) == ANSWERS[name]
    here.close()
    await protocol.wait("lost")
