"""A socket that the program closes while an operation waits for it.

As in uvloop the operation goes on, on the descriptor that stays open until it
ends; only then the close takes effect.  asyncio leaves it waiting for ever.
"""

from __future__ import annotations

import asyncio
import contextlib
import gc
import socket

import pytest
from net_helpers import fill_socket, iterations, tcp_socketpair, waiting


@pytest.fixture(params=["tcp", "unix"])
def pair(request):
    """Two joined non-blocking sockets."""
    near, far = (
        tcp_socketpair() if request.param == "tcp" else socket.socketpair()
    )
    near.setblocking(False)
    far.setblocking(False)
    with near, far:
        yield near, far


@pytest.fixture(autouse=True)
def fastloop_only(loop_kind):
    if loop_kind == "asyncio":
        pytest.skip("asyncio's operation hangs, or speaks for another file")


async def test_recv_goes_on(loop, pair):
    near, far = pair

    task = await waiting(loop.sock_recv(near, 100))
    number = near.fileno()
    near.close()
    assert near.fileno() == number
    far.send(b"data")
    assert await task == b"data"
    assert near.fileno() == -1
    assert await loop.sock_recv(far, 100) == b""


async def test_cancelling_closes(loop, pair):
    near, far = pair

    task = await waiting(loop.sock_recv(near, 100))
    near.close()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert near.fileno() == -1
    assert await loop.sock_recv(far, 100) == b""


async def test_sendall_goes_on(loop, pair):
    near, far = pair

    size = fill_socket(near) + 1_000_000
    task = await waiting(loop.sock_sendall(near, bytes(1_000_000)))
    near.close()
    while size:
        size -= len(await loop.sock_recv(far, 1 << 20))
    await task
    assert near.fileno() == -1
    assert await loop.sock_recv(far, 100) == b""


async def test_the_last_of_two_operations_closes(loop, pair):
    near, far = pair

    size = fill_socket(near)
    reader = await waiting(loop.sock_recv(near, 100))
    writer = await waiting(loop.sock_sendall(near, b"end"))
    near.close()
    far.send(b"data")
    assert await reader == b"data"
    assert near.fileno() >= 0
    while size > -3:
        size -= len(await loop.sock_recv(far, 1 << 20))
    await writer
    assert near.fileno() == -1


async def test_a_file_of_the_socket(loop, pair):
    """makefile() counts in the same way."""
    near, far = pair

    with near.makefile("rb") as file:
        task = await waiting(loop.sock_recv(near, 100))
        far.send(b"data")
        await task
        near.close()
        assert near.fileno() == file.fileno() >= 0
    assert near.fileno() == -1


def test_accept_goes_on(run, loop):
    listener = socket.create_server(("127.0.0.1", 0))
    listener.setblocking(False)
    address = listener.getsockname()

    async def main():
        task = await waiting(loop.sock_accept(listener))
        listener.close()
        with socket.create_connection(address) as client:
            conn, name = await task
            with conn:
                assert name == client.getsockname()
        assert listener.fileno() == -1
        with pytest.raises(ConnectionRefusedError):
            socket.create_connection(address)

    run(main())


def test_connect_goes_on(run, loop):
    with socket.create_server(("127.0.0.1", 0)) as listener:
        near = socket.socket()
        near.setblocking(False)

        async def main():
            task = loop.create_task(
                loop.sock_connect(near, listener.getsockname())
            )
            await iterations(1)
            near.close()
            await task

        run(main())
        assert near.fileno() == -1
        far, _ = listener.accept()
        with far:
            assert far.recv(9) == b""


def test_cancelling_a_connect_closes(run, loop):
    with socket.create_server(("127.0.0.1", 0)) as listener:
        near = socket.socket()
        near.setblocking(False)

        async def main():
            task = loop.create_task(
                loop.sock_connect(near, listener.getsockname())
            )
            await iterations(1)
            near.close()
            assert near.fileno() != -1
            task.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await task
            assert near.fileno() == -1

        run(main())


def test_a_refused_connect_lets_go(run, loop):
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        near = socket.socket()
        near.setblocking(False)

        async def main():
            with pytest.raises(ConnectionRefusedError):
                await loop.sock_connect(near, unused.getsockname())
            near.close()
            assert near.fileno() == -1

        run(main())


def test_datagrams_go_on(run, loop):
    near, far = socket.socketpair(socket.AF_UNIX, socket.SOCK_DGRAM)
    near.setblocking(False)

    async def main():
        task = await waiting(loop.sock_recvfrom(near, 100))
        near.close()
        far.send(b"data")
        assert (await task)[0] == b"data"
        assert near.fileno() == -1

    with near, far:
        run(main())


def test_a_loop_that_is_closed_lets_go(loop_factory, pair):
    near, far = pair
    loop = loop_factory()
    coro = loop.sock_recv(near, 100)
    task = loop.create_task(coro)
    loop.run_until_complete(iterations(3))
    near.close()
    task.cancel()
    loop.run_until_complete(asyncio.wait([task]))
    loop.close()
    assert near.fileno() == -1


async def test_a_call_that_fileno_closes_is_refused(loop, pair):
    class Sock(socket.socket):
        def fileno(self):
            for call in gc.get_objects():
                if type(call).__name__ == "SocketCall":
                    call.close()
            return super().fileno()

    with Sock(fileno=pair[0].detach()) as near:
        with pytest.raises(RuntimeError, match="a SocketCall was closed"):
            await loop.sock_recv(near, 100)
