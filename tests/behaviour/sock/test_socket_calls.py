"""sock_recv and its kin: what they refuse, and how they wait and end.

What they do with other arguments is compared by differential/odd_calls.py.
"""

import asyncio
import errno
import socket
import ssl
import sys
import unittest.mock

import pytest
from net_helpers import fill_socket, iterations, waiting

CALLS = {
    "sock_recv": (5,),
    "sock_recv_into": (bytearray(5),),
    "sock_recvfrom": (5,),
    "sock_recvfrom_into": (bytearray(5),),
    "sock_sendall": (b"x",),
    "sock_sendto": (b"x", "address"),
    "sock_accept": (),
}


@pytest.mark.parametrize("name", CALLS)
async def test_a_wrong_socket_is_refused(debug, pair, name):
    call, args = getattr(debug, name), CALLS[name]
    tls = ssl.SSLSocket.__new__(ssl.SSLSocket)
    with pytest.raises(TypeError, match="Socket cannot be of type SSLSocket"):
        await call(tls, *args)
    for timeout in (None, 1.5):
        pair[0].settimeout(timeout)
        with pytest.raises(ValueError, match="the socket must be non-block"):
            await call(pair[0], *args)
    debug.set_debug(False)
    pair[0].close()
    with pytest.raises(OSError) as caught:
        await call(pair[0], *args)
    assert caught.value.errno == errno.EBADF


async def test_recv_into_fills_the_buffer(loop, pair):
    left, right = pair
    buffer = bytearray(8)

    right.send(b"now")
    assert await loop.sock_recv_into(left, buffer) == 3
    task = await waiting(loop.sock_recv_into(left, memoryview(buffer)[3:]))
    right.send(b"later")
    assert await task == 5
    assert buffer == b"nowlater"
    nothing = bytearray()
    assert await loop.sock_recv_into(left, nothing) == 0
    nothing.extend(b"may grow again")


# --- ends of a wait ---------------------------------------------------------


async def test_a_cancelled_call_lets_go_of_the_buffer(loop, pair):
    data = bytearray(1 << 16)
    fill_socket(pair[0])
    task = await waiting(loop.sock_sendall(pair[0], data))
    task.cancel()
    try:
        await task
    except asyncio.CancelledError:
        # Here, while the exception keeps the coroutine's frames.
        data.clear()
    assert not data


def test_an_interrupt_in_a_call_leaves_the_loop(loop):
    class Own(socket.socket):
        fails = False

        def recv(self, *args):
            if self.fails:
                self.fails = False
                raise KeyboardInterrupt
            return super().recv(*args)

    left, right = socket.socketpair()
    own = Own(fileno=left.detach())
    own.setblocking(False)
    with own, right:
        task = loop.create_task(loop.sock_recv(own, 5))
        loop.run_until_complete(iterations(2))
        own.fails = True
        right.send(b"data")
        with pytest.raises(KeyboardInterrupt):
            loop.run_until_complete(task)
        assert loop.run_until_complete(task) == b"data"


@pytest.mark.parametrize("call", ["accept", "connect"])
def test_ctrl_c_in_fileno_is_raised(loop, call):
    class Interrupted(socket.socket):
        ready = False

        def fileno(self):
            if self.ready:
                raise KeyboardInterrupt
            return super().fileno()

    with Interrupted() as sock:
        sock.setblocking(False)
        args = (("127.0.0.1", 9),) if call == "connect" else ()
        coro = getattr(loop, f"sock_{call}")(sock, *args)
        sock.ready = True
        with pytest.raises(KeyboardInterrupt):
            coro.send(None)
        sock.ready = False


# --- sock_connect -----------------------------------------------------------


@pytest.mark.parametrize(
    ("family", "host", "rest"),
    [
        (socket.AF_INET, "127.0.0.1", ()),
        (socket.AF_INET6, "::1", ()),
        (socket.AF_INET6, "::1", (0, 0)),
    ],
)
async def test_a_refusal_names_the_address_with_flow_and_scope(
    loop, family, host, rest
):
    with socket.create_server((host, 0), family=family) as sock:
        address = sock.getsockname()
    with socket.socket(family) as near:
        near.setblocking(False)
        with pytest.raises(ConnectionRefusedError) as caught:
            await loop.sock_connect(near, (host, address[1], *rest))
        # The kernel may refuse at once, in words of its own.
        if "Connect call" in str(caught.value):
            assert str(address) in str(caught.value)


@pytest.mark.parametrize(
    ("family", "address"),
    [
        (socket.AF_INET, ("::1", 9)),
        (socket.AF_INET, ("::1", 9, 0, 0)),
        (socket.AF_INET6, ("127.0.0.1", 9)),
    ],
)
async def test_an_address_of_another_family_is_refused(loop, family, address):
    with socket.socket(family) as near:
        near.setblocking(False)
        with pytest.raises(socket.gaierror):
            await loop.sock_connect(near, address)


async def test_connect_calls_the_socket_objects_method(loop, monkeypatch):
    """Tools that forbid connections patch it."""
    called = []

    def connect(sock, address):
        called.append(address)
        raise PermissionError

    monkeypatch.setattr(socket.socket, "connect", connect)
    with socket.socket() as near:
        near.setblocking(False)
        with pytest.raises(PermissionError):
            await loop.sock_connect(near, ("127.0.0.1", 9))
    with pytest.raises(PermissionError):
        await loop.create_connection(asyncio.Protocol, "127.0.0.1", 9)
    assert called == [("127.0.0.1", 9)] * 2


@pytest.mark.skipif(
    sys.platform != "linux", reason="a full backlog makes others wait on Linux"
)
async def test_connect_ends_with_the_sockets_own_timeout(loop):
    """Which only a socket that ought to be non-blocking has."""
    with (
        socket.create_server(("127.0.0.1", 0), backlog=0) as full,
        socket.create_connection(full.getsockname()),
        socket.socket() as near,
    ):
        near.settimeout(0.01)
        with pytest.raises(TimeoutError):
            await loop.sock_connect(near, full.getsockname())


async def test_connect_takes_an_object_whose_family_is_no_number(loop):
    """As a mock of a socket has, or a tunnel's."""
    sock = unittest.mock.Mock(socket.socket)
    await loop.sock_connect(sock, ("127.0.0.1", 9))
    sock.connect.assert_called_once_with(("127.0.0.1", 9))
