"""A listening socket that the program gave, and other users of it.

isolated/test_even_workers.py has several processes.
"""

import asyncio
import contextlib
import ctypes
import os
import re
import socket
import sys
import threading

import pytest
from builds import HAS_GIL, ON_LIBUV
from few_descriptors import few_descriptors
from net_helpers import Recorder, listening_socket, spin

pytestmark = pytest.mark.skipif(ON_LIBUV, reason="libuv's wakes all workers")

EPOLLEXCLUSIVE = 1 << 28


@pytest.fixture
def takes_turns(loop):
    """takes_turns(sock): whether the loop's epoll instance has it exclusively.

    None if it does not have it.  The call opens no file.
    """
    with contextlib.ExitStack() as stack:
        files = []
        for number in os.listdir("/proc/self/fd"):
            with contextlib.suppress(FileNotFoundError):  # listdir's own
                if "eventpoll" in os.readlink(f"/proc/self/fd/{number}"):
                    info = open(f"/proc/self/fdinfo/{number}")
                    files.append(stack.enter_context(info))

        def takes_turns(sock):
            found = None
            for file in files:
                file.seek(0)
                pattern = rf"tfd: +{sock.fileno()} events: +(\w+)"
                for events in re.findall(pattern, file.read()):
                    found = bool(int(events, 16) & EPOLLEXCLUSIVE)
            return found

        yield takes_turns


def answering(name=b"server"):
    """What makes protocols that say a name and close."""

    def made(protocol, *args):
        protocol.transport.write(name)
        protocol.transport.close()

    return lambda: Recorder(made=made)


async def ask(sock):
    """What a new connection is told."""
    reader, writer = await asyncio.open_connection(*sock.getsockname())
    try:
        return await reader.read()
    finally:
        writer.close()
        await writer.wait_closed()


@pytest.fixture
def serve(loop):
    """serve(): a listening socket that a server of the loop has."""
    servers = []

    async def serve(sock=None, **options):
        sock = sock or listening_socket()
        servers.append(
            await loop.create_server(answering(**options), sock=sock)
        )
        return sock

    yield serve
    for server in servers:
        server.close()
    loop.run_until_complete(asyncio.sleep(0))


async def test_a_writer_beside_a_server(loop, loop_kind, serve, takes_turns):
    sock = await serve()
    loop.add_writer(sock, loop.stop)  # which no listening socket calls
    assert not takes_turns(sock)
    assert await ask(sock) == b"server"
    assert loop.remove_writer(sock)
    assert await ask(sock) == b"server"
    assert takes_turns(sock) == (loop_kind == "fastloop")


async def test_two_servers_of_one_socket(loop, loop_kind, serve):
    """Of duplicates in one loop; the one that is left serves alone."""
    first = await serve(name=b"first")
    second = await serve(first.dup(), name=b"second")
    answers = [await ask(second) for _ in range(8)]
    if loop_kind == "fastloop":
        assert answers == [b"first", b"second"] * 4
    assert set(answers) <= {b"first", b"second"}
    loop.remove_reader(first)
    assert {await ask(second) for _ in range(70)} == {b"second"}


async def test_a_file_with_the_number_of_a_closed_socket(loop, reports):
    """It is none of the server's, though the loop looks once a second."""
    sock = listening_socket()
    await loop.create_server(answering(), sock=sock)
    readable, peer = socket.socketpair()
    with readable, peer:
        peer.send(b"data")
        number = sock.fileno()
        sock.close()
        os.dup2(readable.fileno(), number)
        await asyncio.sleep(1.2)
        os.close(number)
    assert reports == []


async def test_a_socket_of_the_loop_is_not_shared(loop, takes_turns):
    async with await loop.create_server(answering(), "127.0.0.1") as server:
        (sock,) = server.sockets
        assert await ask(sock) == b"server"
        assert not takes_turns(sock)


async def test_all_are_woken_beside_one_without_descriptors(
    loop, loop_kind, serve, reports, takes_turns, monkeypatch
):
    """From its first pause until it accepts again."""
    monkeypatch.setattr(asyncio.constants, "ACCEPT_RETRY_DELAY", 0)
    sock = await serve()
    with socket.socket() as peer:
        with few_descriptors():
            peer.connect(sock.getsockname())
            await spin(lambda: reports and takes_turns(sock) is not None)
            assert takes_turns(sock) is False
        peer.setblocking(False)
        assert await loop.sock_recv(peer, 9) == b"server"
    assert takes_turns(sock) == (loop_kind == "fastloop")


@pytest.mark.skipif(not HAS_GIL, reason="no thread keeps what is not there")
async def test_all_are_woken_beside_one_whose_thread_keeps_the_gil(
    serve, in_thread, loop_kind, takes_turns
):
    if loop_kind == "asyncio":
        pytest.skip("all are woken in any case")
    sock = await serve()
    interval = sys.getswitchinterval()
    over = threading.Event()

    def keep():
        """Connect, and let the loop have the GIL only after 20 ms."""
        while takes_turns(sock) and not over.is_set():
            with socket.socket() as peer:
                sys.setswitchinterval(1000)
                peer.connect(sock.getsockname())
                ctypes.PyDLL(None).usleep(20_000)
                sys.setswitchinterval(interval)
                peer.recv(9)

    assert takes_turns(sock)
    thread = in_thread(keep)
    try:
        while thread.is_alive():
            await asyncio.sleep(0.001)
    finally:
        over.set()
        sys.setswitchinterval(interval)
    assert not takes_turns(sock)
