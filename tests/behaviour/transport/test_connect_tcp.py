"""create_connection over TCP: refusals, given sockets, cancellation.

Cancelled at any moment, the descriptor is closed once.  Options and several
addresses are asyncio's own code.
"""

from __future__ import annotations

import asyncio
import contextlib
import errno
import gc
import os
import random
import socket

import pytest
from hosts import Made
from net_helpers import (
    Recorder,
    iterations,
    listening_socket,
    tcp_socketpair,
)


def closed_port():
    """A port of the loopback address without a listener.

    Below those that the kernel gives away: no other process listens there in
    the meantime, and no connect finds itself.
    """
    while True:
        port = random.randrange(20_000, 32_000)
        with contextlib.suppress(OSError):
            with socket.create_server(("127.0.0.1", port)):
                return port


class Equal(socket.socket):
    """Like others of the same fd, and so without a hash."""

    def __eq__(self, other):
        return self.fileno() == other.fileno()


async def test_a_given_socket_need_not_have_a_hash(loop):
    near, far = tcp_socketpair()
    near = Equal(fileno=near.detach())
    transport, protocol = await loop.create_connection(Recorder, sock=near)
    with far:
        far.send(b"data")
        assert await protocol.wait_data(4) == b"data"
        transport.abort()
        await protocol.wait_lost()
    protocol.check()


async def test_a_refused_connect_raises(loop):
    port = closed_port()
    with pytest.raises(ConnectionRefusedError) as caught:
        await loop.create_connection(Recorder, "127.0.0.1", port)
    assert caught.value.errno == errno.ECONNREFUSED
    assert f"('127.0.0.1', {port})" in str(caught.value)


async def test_a_given_socket_is_the_programs_after_one_that_was_made(loop):
    """It may be closed behind the transport, which then ends."""
    with listening_socket() as listener:
        address = listener.getsockname()
        made, _ = await loop.create_connection(Recorder, *address)
        sock = socket.create_connection(address)
        sock.setblocking(False)
        given, protocol = await loop.create_connection(Recorder, sock=sock)
        sock.close()
        given.write(b"data")
        assert (await protocol.wait_lost()).errno == errno.EBADF
        made.close()


@pytest.mark.parametrize("count", range(8))
async def test_cancelled_at_each_iteration(loop, count):
    """Nothing is left, and the descriptor is closed once: a second close
    would hit another file that got the fd in between.
    """
    with listening_socket() as listener:
        made = Made()
        task = loop.create_task(
            loop.create_connection(made, *listener.getsockname())
        )
        await iterations(count)
        task.cancel()
        # These take the fds that a close frees, iteration by iteration.
        kept = []
        for _ in range(6):
            kept.extend(os.pipe())
            await asyncio.sleep(0)
        with contextlib.suppress(asyncio.CancelledError):
            transport, _ = await task
            transport.abort()
        await iterations(3)
        gc.collect()
        await iterations(3)
        inodes = [os.fstat(number).st_ino for number in kept]
        assert len(set(inodes)) == len(kept) // 2
        for number in kept:
            os.close(number)
        for protocol in made:
            # A cancelled waiter closes the transport it waited for.
            if "made" in protocol.names:
                assert await protocol.wait_lost() is None
