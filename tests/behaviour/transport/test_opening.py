"""Connections that open, on sockets and names of each origin.

Options and several addresses are asyncio's own code.
"""

import asyncio
import contextlib
import gc
import os
import socket

import pytest
from hosts import Made
from net_helpers import (
    Recorder,
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


@pytest.mark.parametrize("queues", [False, True])
async def test_what_a_client_has_sent_is_read_with_connection_made(
    loop, loop_kind, queues
):
    """asyncio reads in the next iteration.  uvicorn, if it is stopped before,
    closes the connection, and the kernel resets it.
    """

    class Noting(asyncio.Protocol):
        def connection_made(self, transport):
            seen.append(transport)
            if queues:
                loop.call_soon(seen.append, "queued")

        def data_received(self, data):
            seen.append(data)

    seen = []
    async with await loop.create_server(Noting, "127.0.0.1", 0) as server:
        with socket.create_connection(server.sockets[0].getsockname()) as peer:
            peer.sendall(b"request")
            await spin(lambda: seen)
            if loop_kind == "fastloop" and not queues:
                assert len(seen) == 2
            await spin(lambda: b"request" in seen)
            assert seen[1:] == ["queued"] * queues + [b"request"]
            seen[0].abort()
