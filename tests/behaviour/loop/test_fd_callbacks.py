"""add_reader and add_writer: what they return, replace and survive."""

import fcntl
import socket

import pytest
from loop_helpers import nothing
from net_helpers import Recorder


@pytest.mark.parametrize("second", ["sock_sendall", "add_writer"])
def test_a_closed_socket_is_removed_by_its_identity(loop, pair, second):
    """Its fileno() is -1; the first registration names it."""
    left, right = pair
    left.setblocking(False)
    right.setblocking(False)
    size = 4 << 20

    async def send():
        task = loop.create_task(loop.sock_sendall(left, bytes(size)))
        got = 0
        while got < size:
            got += len(await loop.sock_recv(right, size))
        await task

    loop.add_reader(left, nothing)
    if second == "add_writer":
        loop.add_writer(left.fileno(), nothing)
        assert loop.remove_writer(left.fileno()) is True
    else:
        loop.run_until_complete(send())
    left.close()
    assert loop.remove_reader(left) is True


@pytest.mark.parametrize(
    ("number", "error", "text"),
    [
        (10**8, OSError, "Bad file descriptor"),
        (2**31 - 1, OSError, "Bad file descriptor"),
        (2**31, OverflowError, "too large to convert to C "),
        (2**63, OverflowError, "too large to convert to C "),
        (2**70, OverflowError, "too large to convert to C "),
        (-1, ValueError, "file descriptor: -1"),
        (-(2**70), ValueError, f"file descriptor: -{2**70}"),
    ],
)
def test_numbers_that_no_descriptor_has_are_refused(loop, number, error, text):
    for add in (loop.add_reader, loop.add_writer):
        with pytest.raises(error, match=text):
            add(number, nothing)
    for remove in (loop.remove_reader, loop.remove_writer):
        if number >= 0:
            assert remove(number) is False
            continue
        with pytest.raises(ValueError, match=text):
            remove(number)


def test_one_callback_removes_another(loop, iterate):
    """Both are ready in one poll: the removed one must not run."""
    pairs = [socket.socketpair() for _ in range(2)]
    seen = []

    def callback(me, other):
        seen.append(me)
        loop.remove_reader(pairs[other][0])

    loop.add_reader(pairs[0][0], callback, 0, 1)
    loop.add_reader(pairs[1][0], callback, 1, 0)
    for _, right in pairs:
        right.send(b"x")
    iterate(4)
    assert len(set(seen)) == 1
    for left, right in pairs:
        loop.remove_reader(left)
        left.close()
        right.close()


@pytest.mark.parametrize("blocking", [True, False])
def test_blocking_flag_is_left_as_it_was(loop, iterate, pair, blocking):
    left, _ = pair
    left.setblocking(blocking)
    flags = fcntl.fcntl(left, fcntl.F_GETFL)
    loop.add_reader(left, nothing)
    assert fcntl.fcntl(left, fcntl.F_GETFL) == flags
    iterate(4)
    loop.add_writer(left, nothing)
    iterate(4)
    assert fcntl.fcntl(left, fcntl.F_GETFL) == flags
    loop.remove_reader(left)
    loop.remove_writer(left)
    assert fcntl.fcntl(left, fcntl.F_GETFL) == flags


async def test_watching_a_transports_socket_is_refused(loop, pair):
    left, right = pair
    protocol = Recorder()
    await loop.create_connection(lambda: protocol, sock=left)
    for name in ("add_reader", "add_writer", "remove_reader", "remove_writer"):
        args = (nothing,) if name.startswith("add") else ()
        for what in (left, left.fileno()):
            with pytest.raises(RuntimeError, match="is used by transport"):
                getattr(loop, name)(what, *args)
    right.send(b"data")
    assert await protocol.wait_data(4) == b"data"
    protocol.transport.abort()
    await protocol.wait_lost()


async def test_the_socket_of_a_closing_transport_is_watched_no_more(
    loop, loop_kind, pair
):
    """As in a program's clean-up after close()."""
    protocol = Recorder()
    await loop.create_connection(lambda: protocol, sock=pair[0])
    protocol.transport.close()
    assert loop.remove_reader(pair[0]) is False
    assert loop.remove_writer(pair[0].fileno()) is False
    if loop_kind == "fastloop":
        with pytest.raises(RuntimeError, match="is used by transport"):
            loop.add_reader(pair[0], nothing)
    await protocol.wait_lost()


@pytest.mark.parametrize("name", ["reader", "writer"])
def test_a_handle_that_was_cancelled_is_removed(loop, iterate, pair, name):
    """When its event comes: a busy loop would follow."""
    left, right = pair
    seen = []
    getattr(loop, f"_add_{name}")(left, seen.append, name).cancel()
    right.send(b"x")
    iterate(2)
    assert not getattr(loop, f"remove_{name}")(left)
    assert seen == []
