"""A transport that ends while loop.sendfile() sends a file on it."""

from __future__ import annotations

import asyncio
import io
import socket

import pytest
from net_helpers import (
    KIB,
    MIB,
    Peer,
    Recorder,
    iterations,
    tcp_socketpair,
)

SIZE = 8 * MIB


@pytest.fixture
def file(tmp_path):
    path = tmp_path / "file"
    path.write_bytes(b"x" * SIZE)
    with path.open("rb") as file:
        yield file


async def began(file):
    """A transport in the middle of sending FILE."""
    loop = asyncio.get_running_loop()
    near, far = socket.socketpair()
    near.setblocking(False)
    far.setblocking(False)
    near.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 64 * KIB)
    transport, protocol = await loop.create_connection(Recorder, sock=near)
    task = loop.create_task(loop.sendfile(transport, file))
    assert await loop.sock_recv(far, KIB) == b"x" * KIB
    return transport, protocol, far, task


async def rest_of(far):
    loop = asyncio.get_running_loop()
    size = KIB
    while data := await loop.sock_recv(far, MIB):
        size += len(data)
    far.close()
    return size


@pytest.mark.parametrize("end", ["abort", "close"])
async def test_the_connection_ends_at_once(loop_kind, file, end, reports):
    transport, protocol, far, task = await began(file)
    getattr(transport, end)()
    assert await protocol.wait_lost() is None
    assert await rest_of(far) < SIZE
    if loop_kind == "asyncio":
        task.cancel()  # it waits for ever
        reports.clear()  # it sets the waiter's exception a second time
        return
    with pytest.raises(ConnectionError):
        await task
    assert reports == []


@pytest.mark.reports  # asyncio sets the waiter's exception a second time
async def test_a_reset_while_it_waits_for_earlier_writes(file):
    """sendfile raises what ended the connection."""
    loop = asyncio.get_running_loop()
    near, far = tcp_socketpair()
    near.setblocking(False)
    transport, protocol = await loop.create_connection(Recorder, sock=near)
    transport.write(bytes(SIZE))
    assert transport.get_write_buffer_size() > 0
    task = loop.create_task(loop.sendfile(transport, file))
    await iterations()
    Peer(far).reset()
    with pytest.raises(ConnectionResetError) as caught:
        await task
    assert caught.value is await protocol.wait_lost()


async def test_a_cancelled_wait_for_the_buffer(loop_kind, file):
    """The transport is writable again, and reads as before."""
    if loop_kind == "asyncio":
        pytest.skip("asyncio's transport refuses writes for ever")
    loop = asyncio.get_running_loop()
    near, far = socket.socketpair()
    far.setblocking(False)
    transport, protocol = await loop.create_connection(Recorder, sock=near)
    transport.write(b"y" * SIZE)
    assert transport.get_write_buffer_size()
    task = loop.create_task(loop.sendfile(transport, file))
    await iterations(3)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    transport.write(b"z")
    assert transport.is_reading()
    transport.abort()
    await protocol.wait_lost()
    far.close()


@pytest.mark.parametrize("closed", [None, "reused", "not reused"])
async def test_a_cancelled_one_leaves_the_position(tmp_path, file, closed):
    """Also if the file was closed and another one has the fd by then."""
    transport, protocol, far, task = await began(file)
    number = file.fileno()
    other = file
    if closed:
        file.close()
        other = io.BytesIO()
    if closed == "reused":
        other = (tmp_path / "file").open("rb")
        assert other.fileno() == number
    with other:
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        assert other.tell() == 0
    transport.abort()
    await protocol.wait_lost()
    far.close()
