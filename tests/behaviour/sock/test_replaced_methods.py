"""socket.socket or its methods, replaced by the application.

Proxies and tracers derive a class or set methods on a socket object, tests
put a function in the place of the class or set methods on it: the loop makes
the calls that are there.
"""

import asyncio
import socket
from collections import Counter

import pytest
from net_helpers import listening_socket, tcp_socketpair

CALLS = ["recv", "recv_into", "recvfrom", "send", "sendto"]


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


@pytest.mark.parametrize("make", [socket.socketpair, tcp_socketpair])
async def test_methods_set_on_the_class_are_called(
    loop, counted, make, monkeypatch
):
    near, far = make()
    near.setblocking(False)
    far.setblocking(False)
    with near, far:
        await exchange(loop, near, far)
        assert not counted
        counted.replace()
        await exchange(loop, near, far)
        assert counted["send"] == 8
        assert counted["recv"] >= 4
        assert counted["recv_into"] >= 4
        monkeypatch.undo()
        counted.clear()
        await exchange(loop, near, far)
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


async def echo_once(reader, writer):
    writer.write(await reader.readexactly(5))
    await writer.drain()
    writer.close()


async def ask_by_streams():
    """Send a line to a server and back, by streams."""
    server = await asyncio.start_server(echo_once, "127.0.0.1", 0)
    reader, writer = await asyncio.open_connection(
        *server.sockets[0].getsockname()
    )
    writer.write(b"12345")
    assert await reader.read() == b"12345"
    name = writer.get_extra_info("socket").getsockname()
    assert name[0] == "127.0.0.1"
    writer.close()
    await writer.wait_closed()
    server.close()
    await server.wait_closed()


async def test_transports_made_then_call_the_methods_of_the_class(counted):
    counted.replace()
    await ask_by_streams()
    # Both ends; newer versions write by sendmsg as well.
    assert counted["send"] >= 2
    assert counted["recv"] >= 2


async def test_streams_where_the_class_is_a_function(monkeypatch):
    kind, calls = socket.socket, []

    def make(*args, **keywords):
        calls.append(args)
        return kind(*args, **keywords)

    monkeypatch.setattr(socket, "socket", make)
    await ask_by_streams()
    assert calls


# --- a class or an object of the program's own ------------------------------


#: What replaced methods return that the system is not asked.
ANSWERS = {"getsockname": ("here", 1), "getpeername": ("there", 2)}
either = pytest.mark.parametrize("where", ["class", "object"])


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


@either
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
