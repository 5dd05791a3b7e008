"""Connections that open, on sockets and names of each origin.

Options and several addresses are asyncio's own code.
"""

import asyncio
import contextlib
import errno
import gc
import os
import pathlib
import socket
import sys

import pytest
from hosts import Made
from net_helpers import (
    Recorder,
    end,
    iterations,
    link,
    listening_socket,
    spin,
    tcp_socketpair,
)


@pytest.mark.parametrize("made_by", ["client", "sock", "server", "accepted"])
async def test_nodelay_on_sockets_of_every_origin(loop, loop_kind, made_by):
    """asyncio passes over sockets whose proto is 0; fastloop does not."""
    if loop_kind == "asyncio" and made_by in ("sock", "accepted"):
        pytest.skip("asyncio sets no TCP_NODELAY where sock.proto is 0")
    if made_by in ("client", "server"):
        async with link(f"tcp-{made_by}") as c:
            sock = c.transport.get_extra_info("socket")
            assert sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY)
        return
    near, peer = tcp_socketpair()
    assert near.proto == 0
    near.setblocking(False)
    if made_by == "sock":
        connect = loop.create_connection(Recorder, sock=near)
    else:
        connect = loop.connect_accepted_socket(Recorder, near)
    with peer:
        transport, protocol = await connect
        assert near.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY)
        transport.abort()
        await protocol.wait_lost()


@pytest.mark.skipif(
    sys.platform != "linux", reason="a full backlog makes others wait on Linux"
)
async def test_nodelay_on_a_socket_that_is_still_connecting(loop):
    """It has no peer's address yet."""
    with (
        socket.create_server(("127.0.0.1", 0), backlog=0) as full,
        socket.create_connection(full.getsockname()),
    ):
        near = socket.socket(socket.AF_INET, proto=socket.IPPROTO_TCP)
        near.setblocking(False)
        near.connect_ex(full.getsockname())
        with pytest.raises(OSError, match="not connected"):
            near.getpeername()
        _, protocol = await loop.create_connection(Recorder, sock=near)
        assert near.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY)
        await end(protocol)


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


@pytest.mark.parametrize("convert", [str, os.fsencode, pathlib.Path])
@pytest.mark.parametrize("abstract", [False, True])
async def test_kinds_of_unix_path(loop, tmp_path, convert, abstract):
    """What asyncio's sockets say: nameless peers are the empty string."""
    path = name = str(tmp_path / "s")
    if abstract:
        if convert is pathlib.Path or not hasattr(socket, "SO_PASSCRED"):
            pytest.skip("no path has a null byte; Linux only")
        path = "\0" + path
        name = path.encode()
    made = Made()
    server = await loop.create_unix_server(made, convert(path))
    transport, client = await loop.create_unix_connection(
        Recorder, convert(path)
    )
    transport.write(b"hello")
    await spin(lambda: made)
    assert await made[0].wait_data(5) == b"hello"
    names = [
        one.get_extra_info(key)
        for one in (transport, made[0].transport)
        for key in ("peername", "sockname")
    ]
    assert names == [name, "", "", name]
    transport.close()
    assert await client.wait_lost() is None
    assert await made[0].wait_lost() is None
    server.close()
    await server.wait_closed()
