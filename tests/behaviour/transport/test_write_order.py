"""A callback's bytes leave in the order in which it wrote them.

A connection's corked writes come before what the same callback sends by
anything else of its loop, except by a transport on a socket of the program's
own class.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import socket
import sys
import tempfile
from collections.abc import AsyncIterator
from typing import Any

import pytest
from net_helpers import iterations, spin
from tls_ends import contexts
from write_helpers import Peer, served


class Own(socket.socket):
    """A class with calls of its own, which no loop may go round."""

    def send(self, *args: Any) -> int:
        return super().send(*args)

    def sendto(self, *args: Any) -> int:
        return super().sendto(*args)


def own_pair() -> tuple[Own, socket.socket]:
    near, far = socket.socketpair()
    own = Own(fileno=near.detach())
    own.setblocking(False)
    far.settimeout(10)
    return own, far


@contextlib.asynccontextmanager
async def corked() -> AsyncIterator[Peer]:
    """The peer of a connection that wrote twice in this callback."""
    async with served() as (transport, peer):
        transport.write(b"1")
        transport.write(b"2")
        yield peer


def came_first(peer: Peer) -> None:
    assert peer.look() == b"12"


@contextlib.asynccontextmanager
async def write_pipe() -> AsyncIterator[tuple[Any, int]]:
    """A pipe's transport, and the descriptor that reads it."""
    read, write = os.pipe()
    transport, _ = await asyncio.get_running_loop().connect_write_pipe(
        asyncio.BaseProtocol, os.fdopen(write, "wb", 0)
    )
    try:
        yield transport, read
    finally:
        transport.abort()
        await iterations()
        os.close(read)


@pytest.mark.parametrize("method", ["write", "writelines"])
async def test_pipe_writes_follow_earlier_writes(method):
    async with write_pipe() as (pipe, read), corked() as peer:
        pipe.writelines([b"3"]) if method == "writelines" else pipe.write(b"3")
        assert os.read(read, 10) == b"3"
        came_first(peer)


@pytest.mark.usefixtures("child_watcher")
async def test_subprocess_input_follows_earlier_writes():
    child = await asyncio.create_subprocess_exec(
        sys.executable,
        "-c",
        "import sys; sys.stdin.read()",
        stdin=asyncio.subprocess.PIPE,
    )
    assert child.stdin is not None
    async with corked() as peer:
        child.stdin.write(b"3")
        came_first(peer)
    child.stdin.close()
    assert await child.wait() == 0


@pytest.mark.usefixtures("child_watcher")
@pytest.mark.parametrize("found_by", ["pipe", "subprocess"])
async def test_direct_writes_to_a_subprocess_follow_earlier_writes(found_by):
    child = await asyncio.create_subprocess_exec(
        "/bin/cat",
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
    )
    assert child.stdin is not None and child.stdout is not None
    transport: Any = child._transport  # type: ignore[attr-defined]
    if found_by == "pipe":
        file = child.stdin.get_extra_info("pipe")
    else:
        file = transport.get_extra_info("subprocess").stdin
    for data in (b"1", b"2", b"3"):
        child.stdin.write(data)
    os.write(file.fileno(), b"4")
    child.stdin.close()
    assert await child.stdout.read() == b"1234"
    assert await child.wait() == 0


# asyncio leaves the refused socket to the GC.
@pytest.mark.parametrize("loop_kind", ["fastloop"], indirect=True)
@pytest.mark.parametrize("tls", [False, True], ids=["plain", "tls"])
async def test_refusing_a_connection_follows_earlier_writes(tls):
    """Its peer may look for them as soon as it gets the end of file."""
    loop = asyncio.get_running_loop()
    seen = []

    def refuse() -> asyncio.Protocol:
        connection.write(b"1")
        connection.write(b"2")
        raise ZeroDivisionError

    def report(loop: Any, context: dict[str, Any]) -> None:
        assert isinstance(context["exception"], ZeroDivisionError)
        seen.append(peer.look())

    loop.set_exception_handler(report)
    async with served() as (connection, peer):
        server = await loop.create_server(
            refuse, "127.0.0.1", 0, ssl=contexts("server")[0] if tls else None
        )
        with socket.create_connection(server.sockets[0].getsockname()):
            await spin(lambda: seen)
        server.close()
        await server.wait_closed()
    assert seen == [b"12"]
    seen.clear()  # the report's frames have the refused socket


async def opened_on(own: Own, protocol: Any = asyncio.Protocol) -> Any:
    transport, _ = await asyncio.get_running_loop().create_connection(
        protocol, sock=own
    )
    return transport


async def test_a_datagram_to_a_host_name_leaves_in_order():
    """The socket object sends it, as only that can resolve the name."""
    loop = asyncio.get_running_loop()
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as far:
        far.settimeout(10)
        far.bind(("127.0.0.1", 0))
        transport, _ = await loop.create_datagram_endpoint(
            asyncio.DatagramProtocol, local_addr=("127.0.0.1", 0)
        )
        async with corked() as peer:
            transport.sendto(b"3", ("localhost", far.getsockname()[1]))
            assert far.recv(10) == b"3"
            came_first(peer)
        transport.abort()
        await iterations()


async def test_sock_sendall_of_a_socket_class_of_its_own_is_in_order():
    own, far = own_pair()
    with own, far:
        loop = asyncio.get_running_loop()
        async with corked() as peer:
            await loop.sock_sendall(own, b"3")
            assert far.recv(10) == b"3"
            came_first(peer)


@pytest.mark.parametrize("kind", [socket.socket, Own])
async def test_sock_sendto_is_in_order(kind):
    loop = asyncio.get_running_loop()
    with (
        kind(socket.AF_INET, socket.SOCK_DGRAM) as near,
        socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as far,
    ):
        near.setblocking(False)
        far.settimeout(10)
        far.bind(("127.0.0.1", 0))
        async with corked() as peer:
            await loop.sock_sendto(near, b"3", far.getsockname())
            assert far.recv(10) == b"3"
            came_first(peer)


@pytest.mark.parametrize("kind", ["a socket", "a transport", "an own class"])
async def test_sendfile_follows_earlier_writes(kind, monkeypatch):
    """The system's call is the first thing that a peer could notice."""
    loop = asyncio.get_running_loop()
    seen = []

    def sendfile(*args: Any) -> int:
        seen.append(peer.look())
        return send(*args)

    send = os.sendfile
    monkeypatch.setattr(os, "sendfile", sendfile)
    own, far = own_pair()
    with far, tempfile.TemporaryFile() as file:
        file.write(b"3")
        file.flush()
        near = (
            own
            if kind == "an own class"
            else socket.socket(fileno=own.detach())
        )
        near.setblocking(False)
        transport = None if kind == "a socket" else await opened_on(near)
        async with corked() as peer:
            if transport is None:
                assert await loop.sock_sendfile(near, file) == 1
            else:
                assert await loop.sendfile(transport, file) == 1
        assert seen[0] == b"12"
        assert far.recv(10) == b"3"
        near.close()
        if transport is not None:
            transport.abort()
        await iterations()
