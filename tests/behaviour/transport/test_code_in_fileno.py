"""What an application's fileno() may do to the transport that calls it.

fastloop queries an application's socket object before system calls on its fd.
asyncio's transports make these calls through the object, so the same programs
never get there.
"""

from __future__ import annotations

import asyncio
import contextlib
import socket
from collections.abc import Callable

import pytest
from net_helpers import BufferedRecorder, Peer, Recorder, iterations

only_fastloop = pytest.mark.parametrize(
    "loop_kind", ["fastloop"], indirect=True
)


class Sock(socket.socket):
    """Runs a function of the test in fileno(), once."""

    def ask(self, function: Callable[[], None]) -> None:
        def fileno() -> int:
            del self.fileno
            function()
            return self.fileno()

        self.fileno = fileno  # type: ignore[method-assign]


@contextlib.asynccontextmanager
async def connection():
    """Open a connection; yields its socket, its protocol and its peer."""
    near, far = socket.socketpair()
    sock = Sock(fileno=near.detach())
    sock.setblocking(False)
    protocol = Recorder()
    await asyncio.get_running_loop().create_connection(
        lambda: protocol, sock=sock
    )
    await iterations()
    peer = Peer(far)
    try:
        yield sock, protocol, peer
    finally:
        if not protocol.lost:
            protocol.transport.abort()
            await protocol.wait_lost()
        peer.close()


@pytest.mark.parametrize("kind", [KeyboardInterrupt, SystemExit])
def test_an_interrupt_in_fileno_ends_the_run_and_not_the_connection(
    loop, loop_kind, kind
):
    """As of a signal handler that runs there."""

    async def write_and_wait() -> None:
        async with connection() as (sock, protocol, peer):
            sock.ask(interrupt)
            protocol.transport.write(b"x")
            assert await peer.recv() == b"x"
            if loop_kind == "fastloop":
                assert interrupted
            await asyncio.sleep(0)
            assert not protocol.lost

    def interrupt() -> None:
        interrupted.append(kind(3))
        raise interrupted[0]

    interrupted: list[BaseException] = []
    task = loop.create_task(write_and_wait())
    if loop_kind == "fastloop":
        with pytest.raises(kind) as caught:
            loop.run_until_complete(task)
        assert caught.value is interrupted[0]
    loop.run_until_complete(task)


@only_fastloop
@pytest.mark.parametrize(
    ("name", "data"), [("write", b"ab"), ("writelines", [b"a", b"b"])]
)
async def test_a_write_raises_after_fileno_wrote_eof(name, data):
    async with connection() as (sock, protocol, peer):
        sock.ask(protocol.transport.write_eof)
        with pytest.raises(RuntimeError) as caught:
            getattr(protocol.transport, name)(data)
        assert str(caught.value) == f"Cannot call {name}() after write_eof()"
        assert await peer.recv_all() == b""
        assert not protocol.lost


@only_fastloop
@pytest.mark.parametrize("make", [Recorder, BufferedRecorder])
async def test_a_protocol_that_fileno_sets_gets_the_data(make):
    """In the place of a stream's, whose reader gets nothing."""
    async with connection() as (sock, protocol, peer):
        reader, second = asyncio.StreamReader(), make()
        transport = protocol.transport
        transport.set_protocol(asyncio.StreamReaderProtocol(reader))
        await iterations()
        sock.ask(lambda: transport.set_protocol(second))
        await peer.send(b"data")
        assert await second.wait_data(4) == b"data"
        assert reader._buffer == b""
        transport.set_protocol(protocol)
