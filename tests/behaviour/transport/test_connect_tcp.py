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
import socket

import pytest
from hosts import Made
from net_helpers import (
    Recorder,
    iterations,
    listening_socket,
)


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
