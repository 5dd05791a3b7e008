"""A connection whose fd was closed or replaced behind its back.

An os.close() too many closes the file that has that fd by then: usually a
connection of a long-running server.  The connection is lost, and what the
system refuses it is an OSError; the loop and its other descriptors go on.
"""

from __future__ import annotations

import asyncio
import errno
import os
import re
import socket
from contextlib import asynccontextmanager

import pytest
from net_helpers import MIB, every_kind, iterations, link


def fd_of(transport):
    """The fd, which get_extra_info() would expose to the application."""
    return int(re.search(r"\bfd=(\d+)", repr(transport))[1])


def replace_by_file(fd):
    """Let a regular file have the fd."""
    with open(__file__) as file:
        os.dup2(file.fileno(), fd)


REPLACED = {
    "closed": (os.close, errno.EBADF),
    "regular file": (replace_by_file, errno.EPERM),
}


@asynccontextmanager
async def connection(kind):
    """A connection, its fd and a duplicate of it, the last one at the end.

    The fd is /dev/null's in the end, so that the transport has one to close.
    """
    async with link(kind) as c:
        fd = fd_of(c.transport)
        duplicate = os.dup(fd)
        try:
            yield c, fd, duplicate
        finally:
            os.close(duplicate)
            if not c.protocol.lost:
                null = os.open(os.devnull, os.O_RDONLY)
                if null != fd:
                    os.dup2(null, fd)
                    os.close(null)
                c.transport.abort()
                await c.protocol.wait_lost()


async def loop_works():
    """Whether the loop still hears of other descriptors."""
    left, right = socket.socketpair()
    left.setblocking(False)
    right.send(b"x")
    await asyncio.get_running_loop().sock_recv(left, 1)
    left.close()
    right.close()


@every_kind
@pytest.mark.parametrize("loss", REPLACED)
@pytest.mark.parametrize("state", ["", "no duplicate", "unsent bytes"])
async def test_resume_reading_raises_oserror(kind, loss, state):
    """Without a duplicate the system has forgotten the registration, too."""
    lose, code = REPLACED[loss]
    async with connection(kind) as (c, fd, duplicate):
        c.transport.pause_reading()
        if state == "no duplicate":
            with open(os.devnull) as null:
                os.dup2(null.fileno(), duplicate)
        elif state == "unsent bytes":
            c.transport.write(bytes(16 * MIB))
        lose(fd)
        with pytest.raises(OSError) as caught:
            c.transport.resume_reading()
        assert caught.value.errno == code
        await iterations()
        await loop_works()
