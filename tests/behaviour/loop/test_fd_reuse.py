"""Descriptors that other code closed: reused, or kept open by a dup."""

import contextlib
import errno
import os
import socket
import sys

import pytest
from builds import ON_LIBUV
from datagram_helpers import endpoint, plain
from loop_helpers import idle_cpu
from net_helpers import Recorder, fill_socket, iterations

no_duplicates = pytest.mark.skipif(
    ON_LIBUV, reason="libuv reports a closed fd whose file a duplicate keeps"
)


async def open_on(loop, sock):
    sock.setblocking(False)
    transport, protocol = await loop.create_connection(Recorder, sock=sock)
    return transport, protocol


def pair_at(number):
    """Return connected sockets of which the first has this fd."""
    first, second = socket.socketpair()
    if second.fileno() == number:
        first, second = second, first
    assert first.fileno() == number
    for each in (first, second):
        each.setblocking(False)
    return first, second


async def test_writes_after_the_socket_was_closed_are_dropped(loop):
    left, right = socket.socketpair()
    transport, protocol = await open_on(loop, left)
    number = left.fileno()
    left.close()
    stranger, peer = pair_at(number)
    for _ in range(3):
        transport.write(b"not yours")
        transport.writelines([b"nor", b"yours"])
    await iterations()
    with pytest.raises(BlockingIOError):
        peer.recv(100)
    assert protocol.exc.errno == errno.EBADF
    assert os.fstat(number) == os.fstat(stranger.fileno())
    peer.send(b"still there")
    assert stranger.recv(20) == b"still there"
    for each in (right, stranger, peer):
        each.close()


async def test_a_new_connection_reuses_the_fd_of_a_closed_socket(
    loop, loop_kind
):
    if loop_kind == "asyncio":
        pytest.skip("asyncio refuses the new connection")

    left, right = socket.socketpair()
    old, recorder = await open_on(loop, left)
    number = left.fileno()
    left.close()
    stranger, peer = pair_at(number)
    new, protocol = await open_on(loop, stranger)
    peer.send(b"for the new one")
    assert await protocol.wait_data(15) == b"for the new one"
    assert recorder.exc.errno == errno.EBADF
    old.write(b"lost")
    old.close()
    new.write(b"from the new one")
    await iterations()
    assert peer.recv(100) == b"from the new one"
    new.close()
    await iterations()
    for each in (right, peer):
        each.close()


@pytest.mark.skipif(sys.platform != "linux", reason="epoll keeps the dup")
@no_duplicates
@pytest.mark.parametrize("how", ["close", "abort", "nothing"])
def test_no_spinning_when_a_dup_outlives_a_closed_socket(loop, loop_kind, how):
    if loop_kind == "asyncio":
        pytest.skip("asyncio's selector spins on the dead number")
    left, right = socket.socketpair()
    kept = left.dup()

    async def main():
        transport, _ = await open_on(loop, left)
        await iterations()
        left.close()
        right.send(b"x")
        if how != "nothing":
            getattr(transport, how)()
        return transport

    transport = loop.run_until_complete(main())
    assert idle_cpu(loop) < 0.05
    transport.abort()
    loop.run_until_complete(iterations())
    right.close()
    kept.close()


@pytest.mark.skipif(sys.platform != "linux", reason="epoll keeps the dup")
@no_duplicates
@pytest.mark.parametrize("heard", [0, 1, 2, 200])
@pytest.mark.parametrize("then", ["nothing", "add_reader", "remove_writer"])
def test_a_closed_fd_whose_file_a_dup_keeps_causes_no_more_events(
    loop, loop_kind, pair, iterate, heard, then
):
    """The registration is as its last event left it when the fd closes."""
    if loop_kind == "asyncio":
        pytest.skip("asyncio's selector spins on the dead number")
    left, right = pair
    kept = left.dup()
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
        iterate(2)
    assert calls == [1] * heard
    number = left.fileno()
    left.close()
    right.send(b"x")
    if then == "add_reader":
        with pytest.raises(OSError, match="Bad file descriptor"):
            loop.add_reader(number, calls.append, 3)
    elif then == "remove_writer":
        assert loop.remove_writer(number) is True
    iterate(400)
    assert len(calls) <= heard + 64
    calls.clear()
    assert idle_cpu(loop) < 0.05
    assert calls == []
    assert loop.remove_reader(number) is True
    loop.remove_writer(number)
    kept.close()


@pytest.mark.skipif(
    not hasattr(socket, "send_fds"), reason="the system passes none"
)
async def test_bytes_behind_a_passed_descriptor_are_read(loop):
    """A read ends at each: that it was short does not mean all was read."""
    left, right = socket.socketpair()
    for number in range(3):
        socket.send_fds(right, [b"%d" % number], [right.fileno()])
    transport, protocol = await open_on(loop, left)
    assert await protocol.wait_data(3) == b"012"
    transport.close()
    right.close()


@pytest.mark.skipif(sys.platform != "linux", reason="counts numbers")
async def test_datagrams_of_a_reused_fd_go_to_the_new_socket(loop_kind):
    if loop_kind == "asyncio":
        pytest.skip("asyncio's selector finds the new socket")
    sock = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    sock.bind(("127.0.0.1", 0))
    sock.setblocking(False)
    number = sock.fileno()
    async with endpoint(sock=sock) as p:
        sock.close()
        with plain() as other, plain(address=None) as peer:
            other.setblocking(False)
            assert other.fileno() == number
            p.transport.sendto(b"not from there", other.getsockname())
            with pytest.raises(BlockingIOError):
                other.recv(20)
            peer.sendto(b"for another", other.getsockname())
            await iterations(20)
            assert other.recv(20) == b"for another"
            p.transport.abort()
            await p.wait("lost")
    assert p.names == ["made", "error", "lost"]
    assert p.events[1][1].errno == errno.EBADF
