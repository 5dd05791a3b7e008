"""asyncio's transports of pipes on this loop: ends, shared descriptors."""

import asyncio
import contextlib
import errno
import os
import pty
import socket
import tty

import pytest
from few_descriptors import few_descriptors
from net_helpers import Recorder, iterations


@pytest.mark.reports
async def test_a_terminal_that_is_hung_up_is_not_reported(loop, reports):
    near, far = pty.openpty()
    _, protocol = await loop.connect_read_pipe(
        Recorder, os.fdopen(near, "rb", 0)
    )
    os.close(far)
    assert (await protocol.wait_lost()).errno == errno.EIO
    assert not reports


async def test_what_a_socket_receives_ends_a_write_pipe(loop):
    """asyncio takes any readable event for the end of the reader."""
    near, far = socket.socketpair()
    with far:
        _, protocol = await loop.connect_write_pipe(Recorder, near)
        far.send(b"x")
        assert await protocol.wait_lost() is None


# -- a descriptor with another user ------------------------------------------
#
# As with asyncio, the two directions of an fd may have a user each.


@contextlib.contextmanager
def terminal():
    """Yield files for the two directions of a terminal, and its far end."""
    near, far = pty.openpty()
    tty.setraw(far)
    read = os.fdopen(near, "rb", 0)
    write = os.fdopen(near, "wb", 0, closefd=False)
    try:
        yield read, write, far
    finally:
        read.close()
        write.close()
        os.close(far)


async def use_reader(loop, read):
    """Return a future for the first bytes, and what stops reading."""
    seen = loop.create_future()

    def readable():
        seen.set_result(read.read(99))
        loop.remove_reader(read)

    loop.add_reader(read, readable)
    return seen, lambda: loop.remove_reader(read)


async def use_read_pipe(loop, read):
    transport, protocol = await loop.connect_read_pipe(Recorder, read)
    return protocol.wait_data(2), transport.close


@pytest.mark.parametrize("first", ["the reader", "the writer"])
@pytest.mark.parametrize("use", [use_reader, use_read_pipe])
async def test_a_write_pipe_shares_a_terminal_with_a_reader(loop, first, use):
    """No duplicate of the descriptor is needed."""
    with terminal() as (read, write, far):
        if first == "the reader":
            seen, stop = await use(loop, read)
        with few_descriptors():
            transport, protocol = await loop.connect_write_pipe(
                Recorder, write
            )
            if first == "the writer":
                seen, stop = await use(loop, read)
        transport.write(b"out")
        assert os.read(far, 99) == b"out"
        os.write(far, b"in")
        assert await seen == b"in"
        left = 1 << 16
        transport.write(bytes(left))  # waits for room
        os.set_blocking(far, False)
        while left:
            with contextlib.suppress(BlockingIOError):
                left -= len(os.read(far, left))
            await asyncio.sleep(0)
        transport.close()
        assert await protocol.wait_lost() is None
        stop()
        await iterations()
