"""The sock_* coroutines, as far as network programs lean on them.

Every other test here moves the far end's bytes through them; what is tested
apart is names, errors, cancellation, and descriptors that come and go.
"""

from __future__ import annotations

import asyncio
import contextlib
import socket
import unittest.mock

import pytest
from net_helpers import (
    iterations,
    listening_socket,
    tcp_socketpair,
)


@contextlib.contextmanager
def pair():
    near, far = tcp_socketpair()
    near.setblocking(False)
    far.setblocking(False)
    with near, far:
        yield near, far


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


def test_connect_calls_the_socket_objects_method(run, loop, monkeypatch):
    """Tools that forbid connections patch it."""
    called = []

    def connect(sock, address):
        called.append(address)
        raise PermissionError

    monkeypatch.setattr(socket.socket, "connect", connect)

    async def main():
        with socket.socket() as near:
            near.setblocking(False)
            with pytest.raises(PermissionError):
                await loop.sock_connect(near, ("127.0.0.1", 9))
        with pytest.raises(PermissionError):
            await loop.create_connection(asyncio.Protocol, "127.0.0.1", 9)
        assert called == [("127.0.0.1", 9)] * 2

    run(main())


async def test_connect_takes_an_object_whose_family_is_no_number(loop):
    """As a mock of a socket has, or a tunnel's."""
    sock = unittest.mock.Mock(socket.socket)
    await loop.sock_connect(sock, ("127.0.0.1", 9))
    sock.connect.assert_called_once_with(("127.0.0.1", 9))


@pytest.mark.parametrize("method", ["sock_recv", "sock_accept"])
async def test_cancelling_frees_the_descriptor_at_once(loop, method):
    """The fd may be another socket's in the next line."""
    for _ in range(20):
        with pair() as (near, far):
            if method == "sock_recv":
                waiting = loop.sock_recv(near, 1)
                sock = near
            else:
                sock = listening_socket()
                waiting = loop.sock_accept(sock)
            task = loop.create_task(waiting)
            await iterations(2)
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task
            sock.close()
