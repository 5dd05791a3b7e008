"""When what is written leaves: the first write of a callback at once.

The later writes of a callback are corked until it returns, and so is the first
where the last callback that wrote did so several times.  On a busy connection
the writes of callbacks that others follow are corked until the iteration ends.
asyncio sends each write at once.
"""

from __future__ import annotations

import asyncio
import contextlib
import contextvars
import socket
import sys
import threading
import time

import pytest
from datagram_helpers import plain
from net_helpers import Recorder, iterations
from patience import PATIENCE
from write_helpers import (
    HOLDS,
    Peer,
    between_ticks,
    busy,
    end,
    given,
    in_callbacks,
    in_one_iteration,
    learn,
    sent_in_time,
    served,
)

ROUNDS = 6
#: What an asyncio without its fix for it cannot do.
closing_transports_write = sys.version_info[:2] in ((3, 11), (3, 14), (3, 15))


# --- what is corked, and for how long -----------------------------------


async def test_the_first_write_of_a_callback_is_sent_at_once():
    """However often: an answer does not wait for the work that follows."""
    async with served() as (transport, peer):

        def answer():
            transport.write(b"x")
            assert peer.receive(1) == b"x"

        await in_callbacks(*[answer] * ROUNDS)


async def test_the_first_write_of_a_task_step_is_sent_at_once():
    async with served() as (transport, peer):
        for _ in range(ROUNDS):
            transport.write(b"x")
            assert peer.receive(1) == b"x"
            await asyncio.sleep(0)


async def test_later_writes_of_a_callback_are_sent_when_it_returns(loop_kind):
    async with served() as (transport, peer):
        seen = await sent_in_time(transport, peer, b"1", b"2", b"3")
        assert b"".join(seen) == b"123"
        if HOLDS and loop_kind == "fastloop":
            assert seen == (b"1", b"23")


@contextlib.asynccontextmanager
async def client(kind, path):
    """A client's transport, whose socket the loop makes, and its peer."""
    loop = asyncio.get_running_loop()
    family = socket.AF_INET if kind == "tcp" else socket.AF_UNIX
    with socket.socket(family) as listener:
        listener.bind(("127.0.0.1", 0) if kind == "tcp" else path)
        listener.listen()
        address = listener.getsockname()
        if kind == "tcp":
            making = loop.create_connection(Recorder, *address)
        else:
            making = loop.create_unix_connection(Recorder, address)
        transport, _ = await making
        far, _ = listener.accept()
    with far:
        yield transport, Peer(far)
        await end(transport)


@pytest.mark.parametrize("kind", ["tcp", "unix"])
async def test_later_writes_of_a_client_are_sent_when_it_returns(
    loop_kind, kind, tmp_path
):
    async with client(kind, str(tmp_path / "s")) as (transport, peer):
        seen = await sent_in_time(transport, peer, b"1", b"2", b"3")
        assert b"".join(seen) == b"123"
        if HOLDS and loop_kind == "fastloop":
            assert seen == (b"1", b"23")


async def test_a_given_socket_is_known_though_tasks_share_a_context(tmp_path):
    """The other task makes its own socket, and waits for a full backlog."""
    loop = asyncio.get_running_loop()
    context = contextvars.copy_context()
    path = str(tmp_path / "full")
    near, far = socket.socketpair()
    with (
        socket.socket(socket.AF_UNIX) as listener,
        far,
        socket.socket(socket.AF_UNIX) as first,
    ):
        listener.bind(path)
        listener.listen(0)
        first.connect(path)
        other = loop.create_task(
            loop.create_unix_connection(Recorder, path), context=context
        )
        transport, _ = await loop.create_task(
            loop.create_connection(Recorder, sock=near), context=context
        )

        def write():
            transport.write(b"1")
            transport.write(b"2")
            near.send(b"3")

        await in_callbacks(write)
        assert Peer(far).receive(3) == b"123"
        await end(transport)
        other.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await other


async def test_writes_to_a_given_unix_socket_are_sent_at_once():
    near, far = socket.socketpair()
    with far:
        loop = asyncio.get_running_loop()
        transport, _ = await loop.create_unix_connection(Recorder, sock=near)
        peer = Peer(far)

        def write():
            transport.write(b"1")
            transport.write(b"2")
            assert peer.look() == b"12"

        await in_callbacks(write)
        await end(transport)


async def test_corked_bytes_count_as_sent():
    async with served() as (transport, peer):

        def write():
            transport.write(b"1")
            transport.write(b"2")
            assert transport.get_write_buffer_size() == 0
            assert "bufsize=0" in repr(transport)

        await in_callbacks(write)
        assert peer.receive(2) == b"12"


async def test_header_and_body_are_sent_together_from_the_second_pair_on(
    loop_kind,
):
    async with served() as (transport, peer):
        await learn(transport, peer)
        seen = await sent_in_time(transport, peer, b"header ", b"body")
        assert b"".join(seen) == b"header body"
        if HOLDS and loop_kind == "fastloop":
            assert seen[0] == b""


async def test_a_single_write_is_sent_at_once_after_another_single_one():
    """However often the connection wrote several times before that."""
    async with served() as (transport, peer):

        def answer():
            transport.write(b"x")

        def look():
            transport.write(b"y")
            assert peer.receive(1) == b"y"

        for _ in range(ROUNDS):
            await learn(transport, peer)
            await in_callbacks(answer)
            assert peer.receive(1) == b"x"
            await in_callbacks(look)


# --- until the iteration ends --------------------------------------------


def corked(loop_kind):
    return HOLDS and loop_kind == "fastloop"


async def test_writes_of_busy_connections_wait_for_the_iteration(loop_kind):
    async with busy() as (one, first, two, second):
        seen = await between_ticks(
            lambda: one.write(b"a"),
            first.look,
            lambda: two.write(b"b"),
            lambda: first.look() + second.look(),
            peers=(first, second),
        )
        now = b"".join(part for part in seen if part)
        later = first.look() + second.look()
        assert now + later == b"ab"
        assert now == b"" if corked(loop_kind) else b"ab"


async def test_the_last_callback_of_an_iteration_sends_at_once():
    async with busy() as (one, first, two, second):

        def last():
            two.write(b"b")
            return first.look() + second.look()

        seen = await in_one_iteration(lambda: one.write(b"a"), last)
        assert seen[1] == b"ab"


async def test_a_second_write_to_one_of_several_sends_all(loop_kind):
    """Bytes leave in the order in which they were written."""
    async with busy() as (one, first, two, second):
        seen = await between_ticks(
            lambda: one.write(b"a"),
            lambda: two.write(b"b"),
            lambda: one.write(b"c"),
            lambda: (first.look(), second.look()),
            peers=(first, second),
        )
        assert seen[3] == ((b"a" if corked(loop_kind) else b"ac"), b"b")
        await asyncio.sleep(0)
        assert first.look() == (b"c" if corked(loop_kind) else b"")


async def test_two_writes_of_a_busy_connection_wait_together(loop_kind):
    async with busy() as (one, first, _, _):
        seen = await between_ticks(
            lambda: one.write(b"a"),
            lambda: one.writelines([b"b", b"c"]),
            first.look,
            peers=(first,),
        )
        assert seen[2] == (b"" if corked(loop_kind) else b"abc")
        assert (seen[2] or first.look()) == b"abc"


@pytest.mark.parametrize("way", ["close", "write_eof", "abort"])
async def test_the_end_of_a_connection_sends_what_waits(way):
    async with busy() as (one, first, two, second):
        await in_one_iteration(
            lambda: one.write(b"a"),
            lambda: two.write(b"b"),
            lambda: getattr(two, way)(),
            lambda: None,
        )
        assert first.receive(1) + second.receive(1) == b"ab"


async def test_a_tick_of_the_clock_sends_what_waits():
    """A long iteration makes no answer wait for its end."""
    async with busy() as (one, first, _, _):

        def busy_for(seconds):
            end = time.monotonic() + seconds
            while time.monotonic() < end:
                pass

        seen = await in_one_iteration(
            lambda: one.write(b"a"),
            lambda: busy_for(0.03),
            first.look,
            lambda: None,
        )
        assert seen[2] == b"a"


async def test_an_event_answers_at_once():
    """Bytes that data_received writes do not wait for the iteration."""

    class Answers(Recorder):
        def data_received(self, data):
            super().data_received(data)
            self.transport.write(data)
            seen.append(peer.look())

    seen = []
    async with served(Answers) as (_, peer):
        loop = asyncio.get_running_loop()
        for _ in range(12):
            peer.sock.sendall(b"x")
            while len(seen) == 0:
                loop.call_soon(int)
                await asyncio.sleep(0)
            assert seen.pop() == b"x"


# --- order ---------------------------------------------------------------


async def test_writes_to_several_connections_are_sent_in_order():
    """Whether the first write to one of them is corked or not."""
    async with served() as (old, first), served() as (new, second):
        await learn(old, first)

        def work():
            old.write(b"a")
            new.write(b"b")
            assert second.receive(1) == b"b"
            assert first.look() == b"a"
            old.write(b"c")
            new.write(b"d")

        await in_callbacks(work)
        assert (first.look(), second.look()) == (b"c", b"d")


async def test_a_datagram_is_sent_after_earlier_stream_writes():
    loop = asyncio.get_running_loop()
    with plain() as there:
        udp, _ = await loop.create_datagram_endpoint(
            asyncio.DatagramProtocol, remote_addr=there.getsockname()
        )
        async with served() as (transport, peer):

            def work():
                transport.write(b"one ")
                transport.write(b"two")
                udp.sendto(b"three")
                assert there.recv(9) == b"three"
                assert peer.look() == b"one two"

            await in_callbacks(work)
        udp.abort()
        await iterations()


# --- the end -------------------------------------------------------------


async def test_corked_writes_are_sent_before_the_transport_closes():
    async with served() as (transport, peer):
        await learn(transport, peer)

        def finish():
            transport.write(b"the ")
            transport.write(b"end")
            transport.close()

        await in_callbacks(finish)
        assert peer.receive(100) == b"the end"


def write_until_paused(protocol) -> int:
    """Return how many bytes were written."""
    size = 0
    while not protocol.count("pause"):
        protocol.transport.write(bytes(1 << 16))
        size += 1 << 16
    return size


@pytest.mark.parametrize("then", ["", "close", "get_write_buffer_size"])
@pytest.mark.parametrize("how", [served, given])
async def test_writes_of_resume_writing_are_sent_before_the_close(
    loop_kind, how, then
):
    if loop_kind == "asyncio" and not closing_transports_write:
        pytest.skip("asyncio's transport fails there with AttributeError")

    def write(protocol):
        if protocol.count("resume") > 1:
            return
        protocol.transport.write(b"1")
        protocol.transport.write(b"2")
        protocol.transport.write(bytes(100_001))
        if then:
            protocol.transport.get_extra_info("socket").fileno()
            getattr(protocol.transport, then)()

    protocol = Recorder(resume=write)
    async with how(lambda: protocol) as (transport, peer):
        loop = asyncio.get_running_loop()
        size = write_until_paused(protocol)
        transport.close()
        got = await loop.run_in_executor(None, peer.receive, 1 << 30)
        assert len(got) == size + 100_003
        assert protocol.count("resume")
        await protocol.wait_lost()
        protocol.check()


@pytest.mark.parametrize("then", ["abort", "_force_close"])
async def test_resume_writing_may_end_a_closing_transport(loop_kind, then):
    if loop_kind == "asyncio":
        pytest.skip("asyncio calls connection_lost twice there")

    def end(protocol):
        protocol.transport.write(b"1")
        protocol.transport.write(b"2")
        args = (None,) if then == "_force_close" else ()
        getattr(protocol.transport, then)(*args)

    protocol = Recorder(resume=end)
    async with served(lambda: protocol) as (transport, peer):
        size = write_until_paused(protocol)
        transport.close()
        loop = asyncio.get_running_loop()
        got = await loop.run_in_executor(None, peer.receive, 1 << 30)
        assert got[size:] == b"12"
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


async def test_a_thread_that_a_callback_waits_for_writes_at_once():
    """Also what the callback itself wrote before, and in its order."""
    async with served() as (transport, peer):

        def write(*chunks: bytes) -> None:
            for chunk in chunks:
                transport.write(chunk)

        def work() -> None:
            write(b"1", b"2")
            thread = threading.Thread(target=write, args=(b"3", b"4"))
            thread.start()
            thread.join()
            seen.append(peer.receive(4))

        seen: list[bytes] = []
        await in_callbacks(*[work] * ROUNDS)
        assert seen == [b"1234"] * ROUNDS


def test_the_unsent_part_of_a_write_from_outside_is_sent_later(loop):
    with sleeping(loop) as (transport, far):
        left = 4_000_000
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
            await learn(transport, peer)

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
