"""loop.sendfile: parts of files, and a transport that ends meanwhile."""

import asyncio
import io
import select
import socket
import threading

import pytest
from few_descriptors import few_descriptors
from net_helpers import (
    KIB,
    MIB,
    Peer,
    Recorder,
    iterations,
    link,
    pattern,
    spin,
    tcp_socketpair,
)
from tls_ends import tls_link

DATA = pattern(300_000)
SIZE = 8 * MIB
#: Whether asyncio seeks to an offset of 0, too: since gh-150107.
SEEKS = (
    asyncio.SelectorEventLoop._sock_sendfile_update_filepos.__code__.co_argcount
    == 3
)
#: Keywords, and what of the file they mean.
PARTS = [
    ({}, slice(None)),
    ({"offset": 1000}, slice(1000, None)),
    ({"count": 5000}, slice(0, 5000)),
    ({"offset": 70_000, "count": 100_000}, slice(70_000, 170_000)),
    ({"offset": 299_000, "count": 9_000_000}, slice(299_000, None)),
    ({"offset": 300_000}, slice(300_000, None)),
]


@pytest.fixture
def file_of(tmp_path):
    """Return what makes a file with these bytes, closed after the test."""
    path = tmp_path / "file"

    def make(data):
        path.write_bytes(data)
        return opened.append(path.open("rb")) or opened[-1]

    opened = []
    yield make
    for file in opened:
        file.close()


@pytest.mark.parametrize("kind", ["unix"])
@pytest.mark.parametrize("place", ["file", "memory"])
async def test_parts_of_a_file(transport_pair, loop, file_of, place):
    """asyncio leaves a file behind what it sent."""
    c = await transport_pair()
    for how, meant in PARTS:
        file = file_of(DATA) if place == "file" else io.BytesIO(DATA)
        wanted = b"before " + DATA[meant] + b" after"
        c.transport.write(b"before ")
        task = loop.create_task(c.peer.recv_exactly(len(wanted)))
        sent = await loop.sendfile(c.transport, file, **how)
        c.transport.write(b" after")
        assert await task == wanted
        assert sent == len(DATA[meant])
        if sent:
            assert file.tell() == meant.indices(len(DATA))[0] + sent


async def test_a_file_is_sent_from_its_beginning(loop):
    """Wherever it is: a BytesIO that was just written is at its end."""
    file = io.BytesIO()
    file.write(b"all of it")
    async with link("unix") as c:
        sent = await loop.sendfile(c.transport, file)
    assert sent == (len(b"all of it") if SEEKS else 0)


async def test_it_ends_when_the_socket_has_all(loop, loop_kind, file_of):
    """The peer reads nothing, and the socket has too little room for more.

    Callbacks run in between, even if a task does nothing but send.
    """
    seen = []
    file = file_of(DATA)
    async with link("unix") as c:
        loop.call_soon(seen.append, "run")
        assert await loop.sendfile(c.transport, file, 0, 1) == 1
        assert seen == ["run"]
        if loop_kind == "asyncio":
            return  # it waits for the room
        assert await loop.sendfile(c.transport, file, 1, 100_000) == 100_000
        sock = c.transport.get_extra_info("socket")
        assert not select.select([], [sock], [], 0)[1]
        assert await c.peer.recv_exactly(100_001) == DATA[:100_001]


@pytest.mark.parametrize("kind", ["tcp-server"])
async def test_nothing_is_written_meanwhile(transport_pair, loop, file_of):
    """Nor is a descriptor needed: none is free while it begins."""
    c = await transport_pair()
    c.shrink()
    file = file_of(DATA * 20)
    with few_descriptors():
        task = loop.create_task(
            loop.sendfile(c.transport, file, fallback=False)
        )
        assert await c.peer.recv_exactly(1000) == DATA[:1000]
        with pytest.raises((RuntimeError, KeyError)):  # asyncio's is KeyError
            await loop.sendfile(c.transport, file, fallback=False)
        with pytest.raises(RuntimeError, match="sendfile"):
            c.transport.write(b"between")
        rest = await c.peer.recv_exactly(len(DATA) * 20 - 1000)
        assert rest == (DATA * 20)[1000:]
        assert await task == len(DATA) * 20


async def began(loop, file):
    """A transport in the middle of sending a file, and its plain peer."""
    near, far = socket.socketpair()
    near.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 64 * KIB)
    transport, protocol = await loop.create_connection(Recorder, sock=near)
    task = loop.create_task(loop.sendfile(transport, file))
    peer = Peer(far)
    assert await peer.recv(KIB) == b"x" * KIB
    return transport, protocol, peer, task


@pytest.mark.parametrize("end", ["abort", "close"])
async def test_the_connection_ends_at_once(
    loop, loop_kind, file_of, end, reports
):
    transport, protocol, peer, task = await began(loop, file_of(b"x" * SIZE))
    getattr(transport, end)()
    assert await protocol.wait_lost() is None
    assert len(await peer.recv_all()) < SIZE - KIB
    peer.close()
    if loop_kind == "asyncio":
        task.cancel()  # it waits for ever
        reports.clear()  # it sets the waiter's exception a second time
        return
    with pytest.raises(ConnectionError):
        await task
    assert reports == []


@pytest.mark.reports  # asyncio sets the waiter's exception a second time
async def test_a_reset_while_it_waits_for_earlier_writes(loop, file_of):
    """sendfile raises what ended the connection."""
    near, far = tcp_socketpair()
    transport, protocol = await loop.create_connection(Recorder, sock=near)
    transport.write(bytes(SIZE))
    assert transport.get_write_buffer_size() > 0
    task = loop.create_task(loop.sendfile(transport, file_of(DATA)))
    await iterations()
    Peer(far).reset()
    with pytest.raises(ConnectionResetError) as caught:
        await task
    assert caught.value is await protocol.wait_lost()


@pytest.mark.reports  # asyncio sets the waiter's result a second time
async def test_a_close_while_it_waits_for_earlier_writes(
    loop, loop_kind, file_of
):
    near, far = socket.socketpair()
    transport, protocol = await loop.create_connection(Recorder, sock=near)
    transport.write(bytes(SIZE))
    task = loop.create_task(loop.sendfile(transport, file_of(DATA)))
    await iterations()
    transport.close()
    peer = Peer(far)
    assert len(await peer.recv_all()) == SIZE
    peer.close()
    # asyncio's transport has no socket any more.
    wanted = AttributeError if loop_kind == "asyncio" else ConnectionError
    with pytest.raises(wanted):
        await task
    assert await protocol.wait_lost() is None


async def test_a_cancelled_wait_for_the_buffer(loop, loop_kind, file_of):
    """The transport is writable again, and reads as before."""
    if loop_kind == "asyncio":
        pytest.skip("asyncio's transport refuses writes for ever")
    near, far = socket.socketpair()
    transport, protocol = await loop.create_connection(Recorder, sock=near)
    transport.write(b"y" * SIZE)
    assert transport.get_write_buffer_size()
    task = loop.create_task(loop.sendfile(transport, file_of(DATA)))
    await iterations(3)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    transport.write(b"z")
    assert transport.is_reading()
    transport.abort()
    await protocol.wait_lost()
    far.close()


async def test_a_tls_peer_that_leaves_while_a_block_is_read(loop, loop_kind):
    gone = threading.Event()

    class File(io.BytesIO):
        def readinto(self, block):
            assert self.tell() == 0 or gone.wait(60)
            return super().readinto(block)

    async with tls_link(side="server") as c:
        task = loop.create_task(loop.sendfile(c.transport, File(DATA)))
        await c.peer.read_exactly(KIB)
        c.peer.send_eof()
        connection = c.transport._ssl_protocol
        await spin(lambda: connection._state.name == "FLUSHING")
        gone.set()
        if loop_kind == "asyncio":
            assert await task == len(DATA)  # most of which it has dropped
            return
        with pytest.raises(ConnectionError):
            await task
