"""What an application's fileno() may do to the transport that calls it.

fastloop queries an application's socket object before system calls on its fd.
asyncio's transports make these calls through the object, so the same programs
never get there.
"""

from __future__ import annotations

import asyncio
import contextlib
import socket
from typing import Any

import pytest
from datagram_helpers import Datagrams, endpoint, plain
from net_helpers import PY312, Peer, Recorder, iterations


class Sock(socket.socket):
    """Runs a function of the test in fileno(), once."""

    def ask(self, function: Any) -> list[Any]:
        """Return a list that has the function's result once it has run."""
        results: list[Any] = []

        def fileno() -> int:
            vars(self).pop("fileno", None)
            results.append(function())
            return self.fileno()

        vars(self)["fileno"] = fileno
        return results


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


def datagrams(address: Any = ("127.0.0.1", 0), family: Any = socket.AF_INET):
    """Return a bound datagram socket."""
    sock = Sock(family, socket.SOCK_DGRAM)
    sock.setblocking(False)
    sock.bind(address)
    return sock


async def test_a_datagram_goes_to_its_address_though_fileno_sends_another(
    loop_kind,
):
    near = datagrams()
    with plain() as one, plain() as two:
        async with endpoint(sock=near) as p:
            asked = near.ask(
                lambda: p.transport.sendto(b"for two", two.getsockname())
            )
            p.transport.sendto(b"for one", one.getsockname())
            assert one.recv(100) == b"for one"
            if loop_kind == "fastloop":
                assert asked
                assert two.recv(100) == b"for two"


async def test_a_nested_read_leaves_the_outer_datagram_whole(tmp_path):
    """Transports of a loop share their buffers."""
    outer = datagrams(str(tmp_path / "outer"), socket.AF_UNIX)
    inner = datagrams()
    async with endpoint(sock=outer) as p, endpoint(sock=inner) as other:
        with plain(socket.AF_UNIX, str(tmp_path / "a-long-name")) as peer:
            peer.sendto(bytes(100_000), str(tmp_path / "outer"))
            outer.ask(other.transport._read_ready)
            await p.wait("datagram")
            assert [len(data) for data in p.data] == [100_000]
            assert p.events[-1][2] == peer.getsockname()


WRITES = {
    "write": lambda transport: transport.write(b"ab"),
    "writelines": lambda transport: transport.writelines([b"a", b"b"]),
}


@pytest.mark.parametrize("name", WRITES)
async def test_a_write_raises_after_fileno_wrote_eof(name, loop_kind):
    async with connection() as (sock, protocol, peer):
        asked = sock.ask(protocol.transport.write_eof)
        raised = None
        try:
            WRITES[name](protocol.transport)
        except RuntimeError as exc:
            raised = str(exc)
        if loop_kind == "asyncio":
            assert not asked
            protocol.transport.write_eof()
        else:
            assert raised == f"Cannot call {name}() after write_eof()"
        assert await peer.recv_all() == (b"" if raised else b"ab")
        assert not protocol.lost


async def test_a_reply_goes_to_its_sender_though_fileno_reads_from_another(
    loop_kind, tmp_path
):
    """C code caches the address of the last Unix sender only."""
    unix = socket.AF_UNIX
    one, two = str(tmp_path / "one"), str(tmp_path / "two")
    near = datagrams(str(tmp_path / "near"), unix)
    with plain(unix, one) as first, plain(unix, two) as second:
        async with endpoint(sock=near) as p:
            first.sendto(b"from one", str(tmp_path / "near"))
            await p.wait("datagram")
            (*_, address) = p.events[-1]
            second.sendto(b"from two", str(tmp_path / "near"))
            asked = near.ask(p.transport._read_ready)
            p.transport.sendto(b"for one", address)
            assert bool(asked) == (loop_kind == "fastloop")
            await p.wait("datagram", 2)
            assert first.recv(10) == b"for one"
            assert "error" not in p.names
            vars(near).pop("fileno", None)


class Buffer(bytes):
    """Bytes whose buffer runs functions of the test."""

    acquired = released = staticmethod(int)

    def __buffer__(self, flags):
        self.acquired()
        return super().__buffer__(flags)

    def __release_buffer__(self, view):
        self.released()


@pytest.mark.skipif(not PY312, reason="__buffer__() is new in 3.12")
@pytest.mark.parametrize("when", ["acquired", "released"])
def test_a_buffer_that_ends_a_datagrams_transport(
    loop, loop_kind, when, tmp_path
):
    """fileno() has replaced the cached address of the reply, too."""
    if loop_kind == "asyncio":
        pytest.skip("asyncio's ended transport raises AttributeError")
    unix = socket.AF_UNIX
    one, two = str(tmp_path / "one"), str(tmp_path / "two")
    near = datagrams(str(tmp_path / "near"), unix)
    protocol = Datagrams()
    with plain(unix, one) as first, plain(unix, two) as second:

        async def receive(count):
            await protocol.wait("datagram", count)
            return protocol.events[-1][2]

        loop.run_until_complete(
            loop.create_datagram_endpoint(lambda: protocol, sock=near)
        )
        first.sendto(b"from one", str(tmp_path / "near"))
        address = loop.run_until_complete(receive(1))
        second.sendto(b"from two", str(tmp_path / "near"))
        near.ask(protocol.transport._read_ready)

        def end():
            data.acquired = data.released = int
            protocol.transport.abort()
            loop.run_until_complete(asyncio.sleep(0))
            loop.run_until_complete(asyncio.sleep(0))

        data = Buffer(b"data")
        setattr(data, when, end)
        protocol.transport.sendto(data, address)
        vars(near).pop("fileno", None)
        protocol.transport.abort()
        loop.run_until_complete(asyncio.sleep(0))
        assert protocol.names.count("lost") == 1


@pytest.mark.parametrize("kind", [KeyboardInterrupt, SystemExit])
def test_an_interrupt_in_fileno_ends_the_run_and_not_the_connection(
    loop, loop_kind, kind
):
    """As of a signal handler that runs there."""

    async def write_and_wait() -> None:
        async with connection() as (sock, protocol, peer):
            asked = sock.ask(interrupt)
            protocol.transport.write(b"x")
            assert await peer.recv() == b"x"
            if loop_kind == "fastloop":
                assert interrupted
            await asyncio.sleep(0)
            assert not asked
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
