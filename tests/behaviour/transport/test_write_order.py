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
from collections.abc import AsyncIterator, Callable, Iterator
from typing import Any

import pytest
from net_helpers import iterations, spin
from patience import PATIENCE
from tls_ends import contexts
from write_helpers import Peer, in_callbacks, served


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


# --- the ways out of a callback -----------------------------------------


def writes_then(
    run: Callable[..., Any], ask: Callable[[Callable[[], bytes]], bytes]
) -> None:
    """Write twice, then have something else read that, and wait for it."""

    async def main():
        async with served() as (transport, peer):
            got: list[bytes] = []

            def work():
                transport.write(b"one ")
                transport.write(b"two")
                got.append(ask(lambda: peer.receive(7)))

            await in_callbacks(work)
            assert got == [b"one two"]

    run(main())


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


def test_another_loop_that_a_callback_waits_for_sees_its_writes(
    run, loop_factory
):
    async def call(read: Callable[[], bytes]) -> bytes:
        return read()

    with loop_in_thread(loop_factory) as other:
        writes_then(
            run,
            lambda read: asyncio.run_coroutine_threadsafe(
                call(read), other
            ).result(PATIENCE),
        )


def test_an_executor_job_that_a_callback_waits_for_sees_its_writes(run):
    class Executor(concurrent.futures.ThreadPoolExecutor):
        last: Any = None

        def submit(self, *args: Any, **kwargs: Any) -> Any:
            self.last = super().submit(*args, **kwargs)
            return self.last

    with Executor(1) as executor:

        def ask(read: Callable[[], bytes]) -> bytes:
            loop = asyncio.get_running_loop()
            loop.run_in_executor(executor, read)
            got: bytes = executor.last.result(PATIENCE)
            return got

        writes_then(run, ask)


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


def write_and(transport: Any, then: Callable[[], object]) -> None:
    """Write twice, then do something with the socket."""
    transport.write(b"one ")
    transport.write(b"two ")
    then()


@pytest.mark.parametrize("when", ["before", "after"])
async def test_shutdown_of_the_socket_follows_earlier_writes(when):
    async with served() as (transport, peer):
        if when == "before":
            kept = transport.get_extra_info("socket")

        def shut():
            sock = (
                kept
                if when == "before"
                else transport.get_extra_info("socket")
            )
            write_and(transport, lambda: sock.shutdown(socket.SHUT_WR))

        await in_callbacks(shut)
        assert peer.receive(100) == b"one two "


@pytest.mark.parametrize("how", ["fileno", "dup", "_sock", "_sock_fd"])
async def test_sends_through_the_descriptor_follow_earlier_writes(
    how,
):
    async with served() as (transport, peer):
        shown = transport.get_extra_info("socket")
        assert isinstance(shown, asyncio.trsock.TransportSocket)

        def take() -> int:
            if how == "fileno":
                return os.dup(shown.fileno())
            if how == "dup":
                return shown.dup().detach()
            if how == "_sock":
                return os.dup(shown._sock.fileno())
            return os.dup(transport._sock_fd)

        def first():
            write_and(transport, lambda: taken.append(take()))
            with socket.socket(fileno=os.dup(taken[0])) as sock:
                sock.send(b"three ")

        def later():
            write_and(transport, lambda: os.write(taken[0], b"three "))

        taken: list[int] = []
        await in_callbacks(first, later, later, later)
        os.close(taken[0])
        assert peer.receive(56) == b"one two three " * 4
