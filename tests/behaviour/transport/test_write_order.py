"""A callback's bytes leave in the order in which it wrote them.

A connection's corked writes come before what the same callback sends by
anything else of its loop, except by a transport on a socket of the program's
own class.  They also leave before anything that could miss them: another
loop, a job, code that has the socket itself.
"""

from __future__ import annotations

import asyncio
import concurrent.futures
import contextlib
import os
import socket
import tempfile
import threading
import unittest.mock
from collections.abc import AsyncIterator, Callable, Iterator
from typing import Any

import pytest
from datagram_helpers import endpoint, plain
from net_helpers import PY314, iterations, spin
from patience import PATIENCE
from tls_ends import contexts
from write_helpers import Peer, in_callbacks, served


class Own(socket.socket):
    """A class with calls of its own, which no loop may go round."""

    def send(self, *args: Any) -> int:
        return super().send(*args)

    def sendto(self, *args: Any) -> int:
        return super().sendto(*args)


@contextlib.asynccontextmanager
async def corked() -> AsyncIterator[Peer]:
    """The peer of a connection that wrote twice in this callback."""
    async with served() as (transport, peer):
        transport.write(b"1")
        transport.write(b"2")
        yield peer


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


@contextlib.asynccontextmanager
async def stream_socket(kind: Any) -> AsyncIterator[Any]:
    near, far = socket.socketpair()
    loop = asyncio.get_running_loop()
    with kind(fileno=near.detach()) as sock, far:
        sock.setblocking(False)
        yield lambda: loop.sock_sendall(sock, b"3"), far


@contextlib.asynccontextmanager
async def datagram_socket(kind: Any) -> AsyncIterator[Any]:
    loop = asyncio.get_running_loop()
    with kind(socket.AF_INET, socket.SOCK_DGRAM) as sock, plain() as far:
        sock.setblocking(False)
        address = far.getsockname()
        yield lambda: loop.sock_sendto(sock, b"3", address), far


@contextlib.asynccontextmanager
async def datagram_transport(host: str) -> AsyncIterator[Any]:
    """To a host's name the socket object sends: only that can resolve it."""
    async with endpoint() as p:
        with plain() as far:
            address = (host, far.getsockname()[1])

            async def send() -> None:
                p.transport.sendto(b"3", address)

            yield send, far


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
    near, far = socket.socketpair()
    if kind == "an own class":
        near = Own(fileno=near.detach())
    near.setblocking(False)
    with near, far, tempfile.TemporaryFile() as file:
        file.write(b"3")
        file.flush()
        transport = None
        if kind != "a socket":
            transport, _ = await loop.create_connection(
                asyncio.Protocol, sock=near
            )
        async with corked() as peer:
            if transport is None:
                assert await loop.sock_sendfile(near, file) == 1
            else:
                assert await loop.sendfile(transport, file) == 1
        assert seen[0] == b"12"
        assert far.recv(10) == b"3"
        if transport is not None:
            transport.abort()
        await iterations()


@contextlib.contextmanager
def loop_in_thread(make: Any) -> Iterator[asyncio.AbstractEventLoop]:
    """A loop that runs in another thread."""
    other = make()
    thread = threading.Thread(target=other.run_forever)
    thread.start()
    try:
        yield other
    finally:
        other.call_soon_threadsafe(other.stop)
        thread.join()
        other.close()


def in_another_loop(read: Callable[[], bytes], make: Any) -> bytes:
    async def call() -> bytes:
        return read()

    with loop_in_thread(make) as other:
        call_there = asyncio.run_coroutine_threadsafe(call(), other)
        return call_there.result(PATIENCE)


def in_a_job(read: Callable[[], bytes], make: Any) -> bytes:
    got: list[bytes] = []
    with concurrent.futures.ThreadPoolExecutor(1) as executor:
        loop = asyncio.get_running_loop()
        loop.run_in_executor(executor, lambda: got.append(read()))
    return got[0]


def in_a_callback_that_is_cancelled(
    read: Callable[[], bytes], make: Any
) -> bytes:
    """Its cancel() waits while it runs, from 3.14 on."""
    began, got = threading.Event(), []

    def callback() -> None:
        began.set()
        got.append(read())

    with loop_in_thread(make) as other:
        handle = other.call_soon_threadsafe(callback)
        assert began.wait(PATIENCE)
        handle.cancel()
    return got[0]


@pytest.mark.parametrize(
    "ask", [in_another_loop, in_a_job, in_a_callback_that_is_cancelled]
)
async def test_what_a_callback_waits_for_sees_its_writes(loop_factory, ask):
    async with served() as (transport, peer):
        got: list[bytes] = []

        def work():
            transport.write(b"one ")
            transport.write(b"two")
            got.append(ask(lambda: peer.receive(7), loop_factory))

        await in_callbacks(work, work)
        assert got == [b"one two"] * 2


def loop_within(other: asyncio.AbstractEventLoop, coroutine: Any) -> Any:
    """Run another loop inside a callback, as nest_asyncio does."""
    loop = asyncio.get_running_loop()
    asyncio._set_running_loop(None)
    try:
        return other.run_until_complete(coroutine)
    finally:
        asyncio._set_running_loop(loop)


@pytest.mark.skipif(PY314, reason="a thread runs one task from 3.14 on")
def test_a_loop_within_a_callback_sends_in_the_order_of_the_writes(
    loop, loop_factory
):
    """It writes to its own stream, then to one of the loop outside."""
    other = loop_factory()

    async def write(outer):
        async with served() as (inner, peer):
            inner.write(b"1")
            outer.write(b"2")
            return peer.look()

    async def main():
        async with served() as (outer, _):
            seen = []
            await in_callbacks(
                lambda: seen.append(loop_within(other, write(outer)))
            )
            assert seen == [b"1"]

    try:
        loop.run_until_complete(main())
    finally:
        other.close()


# --- the ways out of a callback -----------------------------------------


@contextlib.contextmanager
def looking(peer: Peer, method: str) -> Iterator[type[socket.socket]]:
    """A class of sockets: what it does comes after the writes to a peer."""
    seen: list[bytes] = []

    def look(sock: Any, *args: Any) -> Any:
        if not seen:
            seen.append(peer.receive(7))
        return getattr(super(kind, sock), method)(*args)

    kind = type("Looking", (socket.socket,), {method: look})
    yield kind
    assert seen == [b"one two"]


@pytest.mark.parametrize("host", ["127.0.0.1", "127.1", "::1", "a path"])
async def test_a_socket_connects_after_earlier_writes(host, tmp_path):
    """Also where asyncio's method connects it."""
    loop = asyncio.get_running_loop()
    family, address = {
        "::1": (socket.AF_INET6, ("::1", 0)),
        "a path": (socket.AF_UNIX, str(tmp_path / "s")),
    }.get(host, (socket.AF_INET, ("127.0.0.1", 0)))
    with socket.socket(family) as listener:
        listener.bind(address)
        listener.listen()
        if family != socket.AF_UNIX:
            address = (host, listener.getsockname()[1])
        async with served() as (transport, peer):
            with looking(peer, "connect") as kind, kind(family) as near:
                near.setblocking(False)
                transport.write(b"one ")
                transport.write(b"two")
                await loop.sock_connect(near, address)


def through_a_patch(transport: Any) -> Any:
    original = asyncio.BaseTransport.get_extra_info
    with unittest.mock.patch.object(
        asyncio.BaseTransport,
        "get_extra_info",
        lambda self, name, default=None: original(self, name, default),
    ):
        return transport.get_extra_info("socket")


FINDS: dict[str, Callable[[Any], Any]] = {
    "fileno": lambda t: t.get_extra_info("socket").fileno(),
    "dup": lambda t: t.get_extra_info("socket").dup().detach(),
    "_sock": lambda t: t._sock.fileno(),
    "_extra": lambda t: t._extra["socket"].fileno(),
    "_sock_fd": lambda t: t._sock_fd,
    "patched": lambda t: through_a_patch(t).fileno(),
}


async def test_a_server_closes_its_socket_after_earlier_writes():
    loop = asyncio.get_running_loop()
    async with served() as (transport, peer):
        with looking(peer, "close") as kind:
            sock = kind()
            sock.bind(("127.0.0.1", 0))
            server = await loop.create_server(asyncio.Protocol, sock=sock)
            transport.write(b"one ")
            transport.write(b"two")
            server.close()
            await server.wait_closed()


# --- the descriptor in other hands --------------------------------------


@pytest.mark.parametrize("how", FINDS)
async def test_sends_through_the_descriptor_follow_earlier_writes(how):
    """In the callback that finds it, and in others."""

    def first() -> None:
        transport.write(b"one ")
        transport.write(b"two ")
        found = FINDS[how](transport)
        taken.append(found if how == "dup" else os.dup(found))
        os.write(taken[0], b"three ")

    def later() -> None:
        transport.write(b"one ")
        transport.write(b"two ")
        os.write(taken[0], b"three ")

    taken: list[int] = []
    async with served() as (transport, peer):
        await in_callbacks(first, later, later, later)
        os.close(taken[0])
        assert peer.receive(56) == b"one two three " * 4
        transport.write(b"the ")
        transport.write(b"end")
        transport.get_extra_info("socket").shutdown(socket.SHUT_WR)
        assert peer.receive(100) == b"the end"


@pytest.mark.parametrize(
    ("way", "how"),
    [
        (stream_socket, Own),
        (datagram_socket, socket.socket),
        (datagram_socket, Own),
        (datagram_transport, "127.0.0.1"),
        (datagram_transport, "localhost"),
    ],
)
async def test_another_way_to_send_follows_earlier_writes(way, how):
    async with way(how) as (send, far), corked() as peer:
        await send()
        assert far.recv(10) == b"3"
        assert peer.look() == b"12"
