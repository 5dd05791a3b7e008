"""socket.socket, or methods of it, replaced by the application.

Tests put a function in the place of the class, tracers count by methods that
they set on it.
"""

import asyncio
import socket
from collections import Counter

import pytest

CALLS = ["recv", "recv_into", "recvfrom", "send", "sendto"]


@pytest.fixture
def function_for_class(monkeypatch):
    """Replace socket.socket by a function; return what it was called for."""
    kind, calls = socket.socket, []

    def make(*args, **keywords):
        calls.append(args)
        return kind(*args, **keywords)

    monkeypatch.setattr(socket, "socket", make)
    return calls


async def echo_once(reader, writer):
    writer.write(await reader.readexactly(5))
    await writer.drain()
    writer.close()


async def ask_by_streams(**options):
    """Send a line to a server and back, by streams."""
    server = await asyncio.start_server(echo_once, "127.0.0.1", 0, **options)
    reader, writer = await asyncio.open_connection(
        *server.sockets[0].getsockname()
    )
    writer.write(b"12345")
    got = await reader.read()
    name = writer.get_extra_info("socket").getsockname()
    writer.close()
    await writer.wait_closed()
    server.close()
    await server.wait_closed()
    return got, name


async def test_streams_where_the_class_is_a_function(function_for_class):
    got, name = await ask_by_streams()
    assert got == b"12345"
    assert name[0] == "127.0.0.1"
    assert function_for_class


@pytest.fixture
def counted(monkeypatch):
    """Replace the class's methods on it, when called; return their counter."""
    counter = Counter()

    def replace():
        for name in CALLS:
            method = getattr(socket.socket, name)

            def traced(self, *args, name=name, method=method):
                counter[name] += 1
                return method(self, *args)

            monkeypatch.setattr(socket.socket, name, traced)

    counter.replace = replace
    return counter


@pytest.fixture(params=["socketpair", "tcp"])
def joined(request, pair):
    """Two connected sockets."""
    if request.param == "socketpair":
        yield pair
        return
    with socket.create_server(("127.0.0.1", 0)) as listener:
        near = socket.create_connection(listener.getsockname())
        far, _ = listener.accept()
    near.setblocking(False)
    far.setblocking(False)
    with near, far:
        yield near, far


async def exchange(loop, near, far):
    """Each call of the loop once at once and once after a wait."""
    for _ in range(2):
        await loop.sock_sendall(near, b"1")
        assert await loop.sock_recv(far, 10) == b"1"
        buffer = bytearray(10)
        await loop.sock_sendall(near, b"22")
        assert await loop.sock_recv_into(far, buffer) == 2
        waiting = [
            asyncio.ensure_future(loop.sock_recv(far, 10)),
            asyncio.ensure_future(loop.sock_recv_into(near, buffer)),
        ]
        await asyncio.sleep(0)
        await loop.sock_sendall(near, b"333")
        await loop.sock_sendall(far, b"4444")
        assert await asyncio.gather(*waiting) == [b"333", 4]


async def test_methods_set_on_the_class_are_called(
    loop, counted, joined, monkeypatch
):
    await exchange(loop, *joined)
    assert not counted
    counted.replace()
    await exchange(loop, *joined)
    assert counted["send"] == 8
    assert counted["recv"] >= 4
    assert counted["recv_into"] >= 4
    monkeypatch.undo()
    counted.clear()
    await exchange(loop, *joined)
    assert not counted


async def test_datagram_calls_set_on_the_class_are_called(loop, counted):
    counted.replace()
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
        sock.setblocking(False)
        sock.bind(("127.0.0.1", 0))
        await loop.sock_sendto(sock, b"word", sock.getsockname())
        got, _ = await loop.sock_recvfrom(sock, 10)
    assert got == b"word"
    assert (counted["sendto"], counted["recvfrom"]) == (1, 1)


async def test_a_mock_on_the_class_stands_for_the_system(
    loop, pair, monkeypatch
):
    def refuse(self, *args):
        raise ConnectionResetError("no")

    monkeypatch.setattr(socket.socket, "recv", refuse)
    with pytest.raises(ConnectionResetError, match="no"):
        await loop.sock_recv(pair[0], 1)


async def test_transports_made_then_call_the_methods_of_the_class(counted):
    counted.replace()
    got, _ = await ask_by_streams()
    assert got == b"12345"
    # Both ends; newer versions write by sendmsg as well.
    assert counted["send"] >= 2
    assert counted["recv"] >= 2
