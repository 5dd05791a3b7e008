"""sock_recv and its kin: what they answer, and how they wait and end."""

from __future__ import annotations

import asyncio
import contextlib
import errno
import socket
import ssl

import pytest
from net_helpers import fill_socket, iterations, waiting


@pytest.fixture
def udp():
    """Two non-blocking UDP sockets."""
    with contextlib.ExitStack() as stack:
        socks = []
        for _ in range(2):
            sock = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
            stack.enter_context(sock)
            sock.setblocking(False)
            sock.bind(("127.0.0.1", 0))
            socks.append(sock)
        yield socks


CALLS = {
    "sock_recv": (5,),
    "sock_recv_into": (bytearray(5),),
    "sock_recvfrom": (5,),
    "sock_recvfrom_into": (bytearray(5),),
    "sock_sendall": (b"x",),
    "sock_sendto": (b"x", "address"),
    "sock_accept": (),
}
every_call = pytest.mark.parametrize("name", CALLS)


@every_call
def test_tls_sockets_are_refused(run, loop, name):
    tls = ssl.SSLSocket.__new__(ssl.SSLSocket)
    with pytest.raises(TypeError, match="Socket cannot be of type SSLSocket"):
        run(getattr(loop, name)(tls, *CALLS[name]))


@every_call
@pytest.mark.parametrize("timeout", [None, 1.5])
def test_blocking_sockets_are_refused_when_debugging(
    run, loop, pair, name, timeout
):
    loop.set_debug(True)
    pair[0].settimeout(timeout)
    with pytest.raises(ValueError, match="the socket must be non-blocking"):
        run(getattr(loop, name)(pair[0], *CALLS[name]))


@every_call
def test_a_closed_socket_is_an_error(run, loop, pair, name):
    pair[0].close()
    with pytest.raises(OSError) as caught:
        run(getattr(loop, name)(pair[0], *CALLS[name]))
    assert caught.value.errno == errno.EBADF


@pytest.mark.parametrize("size", [0, 1, 5, 100, 20_000, 300_000])
async def test_recv_sizes(loop, pair, size):
    left, right = pair

    right.send(b"hello")
    data = await loop.sock_recv(left, size)
    assert type(data) is bytes
    assert data == b"hello"[:size]


@pytest.mark.parametrize(
    ("size", "kind"), [(-1, ValueError), ("5", TypeError), (1.5, TypeError)]
)
def test_recv_of_no_size(run, loop, pair, size, kind):
    with pytest.raises(kind):
        run(loop.sock_recv(pair[0], size))
    with pytest.raises(kind):
        run(loop.sock_recvfrom(pair[0], size))


async def test_recv_into(loop, pair):
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


@pytest.mark.parametrize("buffer", [b"read-only", "text", None])
def test_recv_into_an_object_without_a_buffer(run, loop, pair, buffer):
    pair[1].send(b"data")
    with pytest.raises((TypeError, BufferError)):
        run(loop.sock_recv_into(pair[0], buffer))
    assert pair[0].recv(9) == b"data"


async def test_datagrams(loop, udp):
    one, two = udp
    buffer = bytearray(9)

    size = await loop.sock_sendto(one, b"first", two.getsockname())
    assert size == 5
    assert await loop.sock_recvfrom(two, 99) == (
        b"first",
        one.getsockname(),
    )
    task = await waiting(loop.sock_recvfrom(two, 3))
    one.sendto(b"second", two.getsockname())
    assert await task == (b"sec", one.getsockname())
    task = await waiting(loop.sock_recvfrom_into(two, buffer))
    one.sendto(b"third", two.getsockname())
    assert await task == (5, one.getsockname())
    one.sendto(b"fourth", two.getsockname())
    got = await loop.sock_recvfrom_into(two, buf=buffer, nbytes=2)
    assert got == (2, one.getsockname())
    assert buffer == b"foird\0\0\0\0"


@pytest.mark.parametrize("kind", [socket.SOCK_STREAM, socket.SOCK_DGRAM])
def test_recvfrom_of_a_socket_without_a_name(run, loop, kind):
    left, right = socket.socketpair(type=kind)
    left.setblocking(False)
    with left, right:
        right.send(b"x")
        right.send(b"x")
        assert run(loop.sock_recvfrom(left, 1)) == left.recvfrom(1)


@pytest.mark.parametrize("data", ["text", None, 5])
def test_sendall_of_no_buffer(run, loop, pair, data):
    with pytest.raises(TypeError):
        run(loop.sock_sendall(pair[0], data))


def test_a_cancelled_call_lets_go_of_the_buffer(run, loop, pair):
    data = bytearray(1 << 16)

    async def main():
        fill_socket(pair[0])
        task = await waiting(loop.sock_sendall(pair[0], data))
        task.cancel()
        try:
            await task
        except asyncio.CancelledError:
            # Here, while the exception keeps the coroutine's frames.
            data.clear()

    run(main())
    assert not data


async def test_ending_the_replaced_call_leaves_the_other(loop, pair):
    left, right = pair

    first = await waiting(loop.sock_recv(left, 5))
    second = await waiting(loop.sock_recv(left, 5))
    first.cancel()
    await iterations(3)
    right.send(b"data")
    assert await second == b"data"


async def test_a_transport_owns_its_descriptor(loop, pair):
    left, right = pair

    transport, _ = await loop.create_connection(asyncio.Protocol, sock=left)
    with pytest.raises(RuntimeError, match="is used by transport"):
        await loop.sock_recv(transport._sock, 5)
    transport.abort()
    await iterations(3)


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


@pytest.mark.parametrize("kind", ["datagram", "connected"])
async def test_accept_where_no_connection_can_come(loop, kind):
    near, far = socket.socketpair(
        type=socket.SOCK_DGRAM if kind == "datagram" else socket.SOCK_STREAM
    )
    with near, far:
        near.setblocking(False)
        with pytest.raises(OSError):
            await loop.sock_accept(near)
