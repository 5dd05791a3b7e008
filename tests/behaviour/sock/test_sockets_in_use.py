"""A socket that the program closes, or gives away, while a call waits for it.

Closed: as in uvloop the call goes on, and the fd stays open until it ends;
asyncio's waits for ever.  Given away: the call waits until it is cancelled,
and keeps nothing open.
"""

import asyncio
import contextlib
import socket
from types import SimpleNamespace

import pytest
from net_helpers import (
    fill_socket,
    iterations,
    listening_socket,
    tcp_socketpair,
    waiting,
)
from patience import PATIENCE

closes_later = pytest.mark.parametrize(
    "loop_kind", ["fastloop"], indirect=True
)


def take(far):
    """Read to the end of what the other end sends."""
    while not far.recv(1 << 20).endswith(b"end"):
        pass


def datagrams():
    near = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    near.bind(("127.0.0.1", 0))
    far = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    far.connect(near.getsockname())
    return near, far


class Client(socket.socket):
    def connect(self):
        super().connect(self.to)


def server():
    near, far = listening_socket(), Client()
    far.to = near.getsockname()
    return near, far


def send(far):
    far.send(b"data")


#: The sockets, the call that waits, what lets it go on, what it returns.
CALLS = {
    "recv": (tcp_socketpair, "sock_recv", (9,), send, b"data"),
    "recv, unix": (socket.socketpair, "sock_recv", (9,), send, b"data"),
    "recv, debug": (tcp_socketpair, "sock_recv", (9,), send, b"data"),
    "sendall": (tcp_socketpair, "sock_sendall", (b"end",), take, None),
    "sendall, unix": (
        socket.socketpair,
        "sock_sendall",
        (b"end",),
        take,
        None,
    ),
    "recvfrom": (datagrams, "sock_recvfrom", (9,), send, ...),
    "accept": (server, "sock_accept", (), lambda far: far.connect(), ...),
}
READS = ["recv", "recv, unix", "recv, debug"]


@pytest.fixture
def call(request, loop, run, name):
    """A call that waits, on `near`; after the test it is cancelled."""
    make, method, args, go_on, result = CALLS[name]
    near, far = make()
    loop.set_debug("debug" in name)
    near.setblocking(False)
    if method == "sock_sendall":
        fill_socket(near)
    far.settimeout(PATIENCE)
    task = run(waiting(getattr(loop, method)(near, *args)))
    with near, far:
        yield SimpleNamespace(
            near=near, far=far, task=task, result=result, fd=near.fileno(),
            go_on=lambda: asyncio.to_thread(go_on, far),
        )  # fmt: skip
        task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            got = run(task)
            if method == "sock_accept":
                got[0].close()
    assert near.fileno() == -1
    loop.set_debug(False)


@closes_later
@pytest.mark.parametrize("cancelled", [False, True])
@pytest.mark.parametrize("name", CALLS)
async def test_a_closed_socket_closes_when_its_call_ends(call, cancelled):
    call.near.close()
    assert call.near.fileno() == call.fd
    if cancelled:
        call.task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await call.task
    else:
        await call.go_on()
        assert call.result in (await call.task, ...)
    assert call.near.fileno() == -1


@closes_later
@pytest.mark.parametrize("end", ["connected", "cancelled", "refused"])
async def test_a_socket_that_is_closed_while_it_connects(loop, end):
    with listening_socket() as there, socket.socket() as near:
        near.setblocking(False)
        if end == "refused":
            address = there.getsockname()
            there.close()
        else:
            address = there.getsockname()
        task = asyncio.create_task(loop.sock_connect(near, address))
        await iterations(1)
        near.close()
        if end == "cancelled":
            task.cancel()
        with contextlib.suppress(asyncio.CancelledError, OSError):
            await task
        assert near.fileno() == -1


async def by_a_transport(loop, call):
    connect = (
        loop.create_unix_connection
        if call.near.family == socket.AF_UNIX
        else loop.create_connection
    )
    (await connect(asyncio.Protocol, sock=call.near))[0].abort()
    await iterations()


async def by_a_datagram_transport(loop, call):
    opening = loop.create_datagram_endpoint(
        asyncio.DatagramProtocol, sock=call.near
    )
    (await opening)[0].abort()
    await iterations()


async def by_a_server(loop, call):
    (await loop.create_server(asyncio.Protocol, sock=call.near)).close()


async def by_another_call(loop, call):
    second = await waiting(loop.sock_recv(call.near, 9))
    await call.go_on()
    assert await second == b"data"


async def by_a_reader(loop, call):
    loop.add_reader(call.near, print)
    assert loop.remove_reader(call.near)


async def by_remove_reader(loop, call):
    assert loop.remove_reader(call.near)


BY = (by_a_transport, by_another_call, by_a_reader, by_remove_reader)


@pytest.mark.parametrize(
    ("name", "by"),
    [(name, by) for name in READS for by in BY]
    + [("accept", by_a_server), ("recvfrom", by_a_datagram_transport)],
)
async def test_a_displaced_call_waits_and_keeps_nothing_open(loop, call, by):
    await by(loop, call)
    call.near.close()
    assert call.near.fileno() == -1
    if by is by_a_server:
        with pytest.raises(ConnectionRefusedError):
            call.far.connect()
    elif by is not by_a_datagram_transport:
        assert call.far.recv(1) == b""
    assert not call.task.done()


@pytest.mark.parametrize("closed", [True, False])
def test_a_call_whose_loop_is_closed(loop_factory, loop_kind, closed):
    if closed and loop_kind == "asyncio":
        pytest.skip("asyncio closes at once")
    near, far = tcp_socketpair()
    near.setblocking(False)
    loop = loop_factory()
    task = loop.run_until_complete(waiting(loop.sock_recv(near, 1)))
    task._log_destroy_pending = False
    if closed:
        near.close()
    loop.close()
    near.close()
    assert near.fileno() == -1
    with far:
        assert far.recv(1) == b""
    del task
