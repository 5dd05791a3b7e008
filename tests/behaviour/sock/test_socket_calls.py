"""sock_recv and its kin: what they answer, and how they wait and end."""

from __future__ import annotations

import asyncio
import errno
import socket
import ssl

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
