"""What a callback wrote leaves before anything that could miss it.

Another loop, a job, a process, code that has the socket itself: what they do
comes after what the callback wrote before, as with asyncio.
"""

from __future__ import annotations

import asyncio
import concurrent.futures
import contextlib
import os
import socket
import subprocess
import threading
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from net_helpers import iterations
from patience import PATIENCE
from write_helpers import Peer, in_callbacks, served

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


@pytest.mark.usefixtures("child_watcher")
async def test_a_process_is_started_after_earlier_writes(
    monkeypatch,
):
    seen: list[bytes] = []
    real = subprocess.Popen
    async with served() as (transport, peer):

        def popen(*args: Any, **kwargs: Any) -> Any:
            seen.append(peer.look())
            return real(*args, **kwargs)

        monkeypatch.setattr(subprocess, "Popen", popen)
        transport.write(b"one ")
        transport.write(b"two")
        child = await asyncio.create_subprocess_exec("true")
        await child.wait()
    assert seen == [b"one two"]


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


async def test_sends_through_a_given_socket_follow_earlier_writes():
    near, far = socket.socketpair()
    loop = asyncio.get_running_loop()
    with far:
        transport, _ = await loop.create_connection(
            asyncio.Protocol, sock=near
        )

        def work():
            write_and(transport, lambda: near.send(b"three "))

        await in_callbacks(*[work] * 4)
        assert Peer(far).receive(56) == b"one two three " * 4
        transport.abort()
        await iterations()
