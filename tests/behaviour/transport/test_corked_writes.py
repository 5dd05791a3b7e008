"""When what a callback writes leaves.

asyncio sends each write at once. fastloop sends it when the callback returns,
if that is an event, or else when the iteration ends; and sooner if the coarse
clock ticks.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import select
import socket
import subprocess
import sys
import textwrap
import threading

import pytest
from net_helpers import Recorder, iterations
from patience import PATIENCE
from write_helpers import (
    HOLDS,
    Peer,
    await_tick,
    between_ticks,
    end,
    given,
    in_one_iteration,
    served,
    two_served,
)

#: What an asyncio without its fix for it cannot do.
closing_transports_write = sys.version_info[:2] in ((3, 11), (3, 14), (3, 15))


# --- what is corked, and for how long -----------------------------------


def corked(loop_kind):
    return HOLDS and loop_kind == "fastloop"


@contextlib.asynccontextmanager
async def client(family, address):
    """A client's transport, whose socket the loop makes, and its peer."""
    loop = asyncio.get_running_loop()
    with socket.socket(family) as listener:
        listener.bind(address)
        listener.listen()
        address = listener.getsockname()
        if family == socket.AF_INET:
            making = loop.create_connection(Recorder, *address)
        else:
            making = loop.create_unix_connection(Recorder, address)
        transport, _ = await making
        far, _ = listener.accept()
    with far:
        yield transport, Peer(far)
        await end(transport)


@contextlib.asynccontextmanager
async def shown(path):
    """The program has asked the socket for its descriptor."""
    async with served() as (transport, peer):
        transport.get_extra_info("socket").fileno()
        yield transport, peer


@contextlib.asynccontextmanager
async def queried(path):
    """The program has asked for names and options, as HTTP servers do."""
    async with served() as (transport, peer):
        sock = transport.get_extra_info("socket")
        assert sock.family == socket.AF_INET
        assert sock.type == socket.SOCK_STREAM
        assert sock.proto in (0, socket.IPPROTO_TCP)
        assert sock.getpeername() == peer.sock.getsockname()
        assert sock.getsockname() == peer.sock.getpeername()
        assert not sock.get_inheritable()
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
        assert sock.getsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE)
        assert repr(sock).startswith("<asyncio.TransportSocket fd=")
        yield transport, peer


#: How the transport came to be, and whether it corks.
WAYS = {
    "server": (lambda path: served(), True),
    "tcp client": (
        lambda path: client(socket.AF_INET, ("127.0.0.1", 0)),
        True,
    ),
    "unix client": (lambda path: client(socket.AF_UNIX, path), True),
    "socket queried": (queried, True),
    "given socket": (lambda path: given(), False),
    "given unix socket": (
        lambda path: given(method="create_unix_connection"),
        False,
    ),
    "accepted socket": (
        lambda path: given(method="connect_accepted_socket"),
        False,
    ),
    "descriptor shown": (shown, False),
}


@pytest.mark.parametrize("way", WAYS)
async def test_what_a_callback_writes_leaves_when_the_iteration_ends(
    loop_kind, way, tmp_path
):
    make, corks = WAYS[way]
    async with make(str(tmp_path / "s")) as (transport, peer):
        seen = await between_ticks(
            lambda: (transport.write(b"1"), peer.look())[1],
            lambda: (transport.writelines([b"2", b"3"]), peer.look())[1],
            peer.look,
            peers=[peer],
        )
        if corks and corked(loop_kind):
            assert seen == [b"", b"", b""]
            assert peer.look() == b"123"
        else:
            assert seen == [b"1", b"23", b""]


async def test_what_an_event_writes_leaves_when_it_returns(loop_kind):
    """A header and a body of data_received, before the next event."""

    class Answers(Recorder):
        def data_received(self, data):
            self.transport.write(b"header ")
            inside.append(mine.look())
            self.transport.write(b"body")

    class Looks(Recorder):
        def data_received(self, data):
            after.append(mine.look())

    inside, after = [], []
    async with served(Answers) as (_, mine), served(Looks) as (_, other):
        mine.sock.sendall(b"x")
        other.sock.sendall(b"x")
        await iterations()
        assert inside == [b"" if corked(loop_kind) else b"header "]
        assert after == [b"header body" if corked(loop_kind) else b"body"]


async def test_each_piece_leaves_with_the_next_write_at_the_latest():
    """A coroutine writes a piece and computes the next one, again and again,
    as a server that streams a model's answer does; drain() does not suspend.
    """
    async with served() as (transport, peer):
        for number in range(6):
            transport.write(b"%d" % number)
            if number:  # with the piece before it
                size = 2 if number == 1 else 1
                assert peer.receive(size)[-1:] == b"%d" % number
            await_tick()


async def test_a_tick_of_the_clock_sends_what_an_earlier_callback_wrote():
    """A long iteration makes no answer wait for its end."""
    async with served() as (transport, peer):
        seen = await in_one_iteration(
            lambda: transport.write(b"a"),
            await_tick,
            peer.look,
            lambda: None,
        )
        assert seen[2] == b"a"


@pytest.mark.parametrize("way", ["close", "write_eof", "abort"])
async def test_the_end_of_a_connection_sends_what_waits(way):
    async with two_served() as (one, first, two, second):
        await in_one_iteration(
            lambda: one.write(b"a"),
            lambda: two.write(b"b"),
            lambda: getattr(two, way)(),
            lambda: None,
        )
        assert first.receive(1) + second.receive(1) == b"ab"


# --- order ---------------------------------------------------------------


@pytest.mark.skipif(
    not hasattr(select, "epoll"), reason="tells the order of the bytes"
)
@pytest.mark.parametrize("order", ["aba", "bab", "ab", "ba"])
async def test_connections_are_sent_in_the_order_of_their_first_writes(order):
    async with two_served() as (one, first, two, second):
        ends = {"a": (one, first), "b": (two, second)}
        with contextlib.closing(select.epoll()) as ready:
            for peer in (first, second):
                ready.register(peer.sock, select.EPOLLIN)
            await in_one_iteration(
                *(lambda end=end: ends[end][0].write(b"x") for end in order)
            )
            await asyncio.sleep(0)
            found = [fd for fd, _ in ready.poll(PATIENCE)]
        assert found == [ends[end][1].sock.fileno() for end in order[:2]]
        for end in "ab":
            assert ends[end][1].look() == b"x" * order.count(end)


# --- the end -------------------------------------------------------------


def write_until_paused(protocol) -> int:
    """Return how many bytes were written."""
    size = 0
    while not protocol.count("pause"):
        protocol.transport.write(bytes(1 << 16))
        size += 1 << 16
    return size


@pytest.mark.parametrize("then", ["", "close", "abort", "_force_close"])
async def test_writes_of_resume_writing_are_sent_before_the_close(
    loop_kind, then
):
    aborts = then in ("abort", "_force_close")
    if loop_kind == "asyncio" and (aborts or not closing_transports_write):
        pytest.skip("asyncio fails there, or calls connection_lost twice")

    def write(protocol):
        if protocol.count("resume") > 1:
            return
        protocol.transport.write(b"1")
        protocol.transport.write(b"2")
        if not aborts:
            protocol.transport.write(bytes(100_001))
        if then:
            args = (None,) if then == "_force_close" else ()
            getattr(protocol.transport, then)(*args)

    protocol = Recorder(resume=write)
    async with served(lambda: protocol) as (transport, peer):
        loop = asyncio.get_running_loop()
        size = write_until_paused(protocol)
        transport.close()
        got = await loop.run_in_executor(None, peer.receive, 1 << 30)
        assert len(got) == size + (2 if aborts else 100_003)
        assert got[size : size + 2] == b"12"
        assert protocol.count("resume")
        await protocol.wait_lost()
        protocol.check()


# --- other threads, and leaving the run ----------------------------------


@contextlib.contextmanager
def sleeping(loop):
    """A transport whose loop sleeps in another thread, and its peer."""
    near, far = socket.socketpair()
    opened: list[asyncio.Transport] = []
    ready = threading.Event()
    over = asyncio.Event()

    async def serve():
        transport, _ = await loop.create_connection(
            asyncio.Protocol, sock=near
        )
        opened.append(transport)
        ready.set()
        await over.wait()
        transport.abort()
        await asyncio.sleep(0)

    thread = threading.Thread(target=loop.run_until_complete, args=(serve(),))
    thread.start()
    assert ready.wait(PATIENCE)
    far.settimeout(PATIENCE)
    with far:
        try:
            yield opened[0], far
        finally:
            loop.call_soon_threadsafe(over.set)
            thread.join()


def test_writes_from_outside_wait_for_no_callback(loop):
    """asyncio's documents forbid them, but its transports send them."""
    with sleeping(loop) as (transport, far):
        for _ in range(50):
            transport.write(b"head ")
            transport.writelines([b"body ", b"more "])
            transport.write(b"end")
            got = b""
            while len(got) < 18:
                got += far.recv(100)
            assert got == b"head body more end"
        left = 4_000_000  # more than is sent at once
        transport.write(bytes(left))
        while left:
            left -= len(far.recv(left))


@pytest.mark.parametrize("error", [KeyboardInterrupt, SystemExit])
def test_corked_writes_are_sent_when_the_run_ends(loop, error):
    """An exception of the callback that wrote them does not delay them."""
    peers: list[Peer] = []
    ended = loop.create_future()

    async def serve():
        async with served() as (transport, peer):

            def write():
                transport.write(b"the ")
                transport.write(b"last")
                raise error

            peers.append(peer)
            loop.call_soon(write)
            await ended

    serving = loop.create_task(serve())
    with pytest.raises(error):
        loop.run_until_complete(serving)
    assert peers[0].receive(8) == b"the last"
    ended.set_result(None)
    loop.run_until_complete(serving)


# --- what may happen inside a flush ------------------------------------


@pytest.mark.skipif(
    "ASAN_OPTIONS" in os.environ,
    reason="CPython 3.13 uses a freed thread state when it ends such threads",
)
def test_a_daemon_thread_loses_no_bytes_at_exit(loop_kind):
    """The main thread ends while a callback of the loop still runs."""
    program = f"""
        import asyncio, fastloop, os, socket, threading, time

        new_loop = dict(asyncio=asyncio.new_event_loop,
                        fastloop=fastloop.new_event_loop)["{loop_kind}"]
        loop = new_loop()
        threading.Thread(target=loop.run_forever, daemon=True).start()

        class Server(asyncio.Protocol):
            def connection_made(self, transport):
                self.transport = transport

        async def serve():
            server = await loop.create_server(lambda: protocol, "127.0.0.1", 0)
            peer = socket.create_connection(server.sockets[0].getsockname())
            while not hasattr(protocol, "transport"):
                await asyncio.sleep(0)
            return server, peer

        def write():
            protocol.transport.write(b"goodbye")
            written.set()

        def both():
            loop.call_soon(write)
            loop.call_soon(time.sleep, 60)

        protocol, written = Server(), threading.Event()
        server, peer = asyncio.run_coroutine_threadsafe(serve(), loop).result()
        if os.fork():
            peer.close()
            loop.call_soon_threadsafe(both)
            written.wait()
        else:
            peer.settimeout(10)
            os.write(1, peer.recv(100))
            os._exit(0)
    """
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", textwrap.dedent(program)],
        stdout=subprocess.PIPE,
        timeout=60,
    )
    assert done.stdout == b"goodbye"
