"""Registered descriptors whose file lives on in a duplicate."""

import asyncio
import contextlib
import os
import socket
import sys

import pytest
from fd_helpers import idle_cpu, iterations, nothing
from net_helpers import fill_socket


@pytest.fixture
def shared(pair):
    """Return two connected sockets; a dup keeps the first one's file open."""
    with pair[0].dup():
        yield pair


@pytest.fixture
def tells_dups_apart(loop_kind):
    """Skip asyncio, which spins: the kernel goes on reporting the file under
    the closed fd.
    """
    if sys.platform != "linux":
        pytest.skip("epoll keeps the dup")
    if loop_kind == "asyncio":
        pytest.skip("asyncio's selector spins on the closed fd")


on_fastloop = pytest.mark.usefixtures("tells_dups_apart")
HEARD = [0, 1, 2, 200]


def hear(loop, left, right, count):
    """Register left, and have it report a byte so many times."""
    loop.add_reader(left, lambda: left.recv(1))
    for _ in range(count):
        right.send(b"x")
        iterations(loop, 2)
    loop.add_reader(left, nothing)
    iterations(loop, 2)


@on_fastloop
@pytest.mark.parametrize("heard", HEARD)
@pytest.mark.parametrize("then", ["nothing", "add_reader", "remove_writer"])
def test_closed_after_an_event_causes_no_more_events(
    loop, shared, heard, then
):
    """The registration is as its last event left it when the fd closes."""
    left, right = shared
    calls = []

    def reader():
        calls.append(1)
        with contextlib.suppress(OSError):
            left.recv(1)

    fill_socket(left)
    loop.add_reader(left, reader)
    loop.add_writer(left, calls.append, 2)
    for _ in range(heard):
        right.send(b"x")
        iterations(loop, 2)
    assert calls == [1] * heard
    number = left.fileno()
    left.close()
    right.send(b"x")
    if then == "add_reader":
        with pytest.raises(OSError, match="Bad file descriptor"):
            loop.add_reader(number, calls.append, 3)
    elif then == "remove_writer":
        assert loop.remove_writer(number) is True
    iterations(loop, 400)
    assert len(calls) <= heard + 64
    calls.clear()
    assert idle_cpu(loop) < 0.05
    assert calls == []
    assert loop.remove_reader(number) is True
    loop.remove_writer(number)


@on_fastloop
@pytest.mark.parametrize("heard", HEARD)
def test_a_file_that_reuses_the_fd_gets_no_events_of_the_old_one(
    loop, shared, heard
):
    """Not either once the events of the file that was there have ended."""
    left, right = shared
    stranger, peer = socket.socketpair()
    calls = []

    def reader():
        calls.append(1)
        with contextlib.suppress(BlockingIOError):
            left.recv(1)

    loop.add_reader(left, reader)
    for _ in range(heard):
        right.send(b"x")
        iterations(loop, 2)
    assert calls == [1] * heard
    stranger.setblocking(False)
    os.dup2(stranger.fileno(), left.fileno())
    right.send(b"x")
    iterations(loop, 400)
    calls.clear()
    peer.send(b"y")
    iterations(loop, 10)
    assert calls == []
    assert stranger.recv(9) == b"y"
    loop.remove_reader(left)
    stranger.close()
    peer.close()


@on_fastloop
@pytest.mark.parametrize("heard", [0, 1, 2])
def test_paused_after_its_fd_was_closed(loop, shared, heard):
    """Events that a dup keeps alive do not reach a paused transport."""
    left, right = shared

    came = asyncio.Event()

    class Hearer(asyncio.Protocol):
        def data_received(self, data):
            came.set()

    async def play():
        transport, _ = await loop.create_connection(Hearer, sock=left)
        for _ in range(heard):
            came.clear()
            right.send(b"x")
            await came.wait()
        os.close(left.fileno())
        transport.pause_reading()
        right.send(b"x")
        return transport

    transport = loop.run_until_complete(play())
    assert idle_cpu(loop) < 0.05
    left.detach()
    transport.abort()
    iterations(loop, 2)


@pytest.mark.parametrize("heard", HEARD)
def test_removed_while_a_dup_lives(loop, shared, heard):
    left, right = shared
    hear(loop, left, right, heard)
    seen = []
    loop.add_reader(left, seen.append, 1)
    iterations(loop, 2)
    right.send(b"x")
    assert loop.remove_reader(left) is True
    left.close()
    iterations(loop, 3)
    assert seen == []
    assert idle_cpu(loop) < 0.05
