"""The far ends of a TLS connection, which the tests drive.

`WirePeer` is an `ssl.SSLObject` over a plain socket: the test decides how
records are cut, joined or spoiled.
"""

from __future__ import annotations

import asyncio
import contextlib
import socket
import ssl
from asyncio import sslproto
from collections.abc import AsyncIterator, Callable, Coroutine
from typing import Any

import pytest
from net_helpers import (
    MIB,
    Link,
    Peer,
    Recorder,
    client_context,
    listening_socket,
    server_context,
    tcp_socketpair,
)

SIDES = ("client", "server")
#: Also a connection that was plain first.
WAYS = (*SIDES, "start-tls-client", "start-tls-server")
VERSIONS = {
    "1.2": ssl.TLSVersion.TLSv1_2,
    "1.3": ssl.TLSVersion.TLSv1_3,
}

every_side = pytest.mark.parametrize("side", SIDES)
every_way = pytest.mark.parametrize("side", WAYS)
every_version = pytest.mark.parametrize("version", VERSIONS)

#: The first byte of a record says what it holds.
APPLICATION_DATA = 23
#: How much plain text a record takes.
RECORD = 16384


def contexts(side: str, version: str | None = None) -> tuple[Any, Any]:
    """The contexts of the tested side and of its peer."""
    near, far = client_context(), server_context()
    if not side.endswith("client"):
        near, far = far, near
    if version is not None:
        far.minimum_version = far.maximum_version = VERSIONS[version]
    return near, far


class PlainPeer(Peer):
    """A far end that speaks no TLS; what it sends leaves at once."""

    def __init__(self, sock: socket.socket) -> None:
        super().__init__(sock)
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)

    async def expect_end(self) -> bytes:
        """The rest of the wire up to the end or the reset."""
        with contextlib.suppress(ConnectionResetError):
            return await self.recv_all()
        return b""


def closes_with_raw(test: Any) -> Any:
    """Mark a test of is_closing() that includes the raw transport.

    asyncio passes it from 3.14 on, and in later releases of 3.12 and 3.13.
    """
    passes = hasattr(sslproto.SSLProtocol, "_is_transport_closing")
    return test if passes else pytest.mark.native_tls(test)


class WirePeer(PlainPeer):
    """A TLS peer over a plain socket: `send` and `recv` are of the wire."""

    def __init__(
        self,
        sock: socket.socket,
        context: ssl.SSLContext,
        server_side: bool,
    ) -> None:
        super().__init__(sock)
        self.incoming = ssl.MemoryBIO()
        self.outgoing = ssl.MemoryBIO()
        # Early 3.11 sets it, and a ragged end is a close_notify then.
        context.options &= ~ssl.OP_IGNORE_UNEXPECTED_EOF
        self.tls = context.wrap_bio(
            self.incoming,
            self.outgoing,
            server_side,
            None if server_side else "localhost",
        )

    async def flush(self) -> None:
        """Send what TLS wants to send."""
        if data := self.outgoing.read():
            await self.send(data)

    async def _pull(self) -> None:
        data = await self.recv()
        if data:
            self.incoming.write(data)
        else:
            self.incoming.write_eof()

    async def attempt(self, call: Callable[..., Any], *args: Any) -> Any:
        """Make *call* until it needs no more bytes; its last are not sent."""
        while True:
            try:
                return call(*args)
            except ssl.SSLWantReadError:
                await self.flush()
                await self._pull()

    async def drive(self, call: Callable[..., Any], *args: Any) -> Any:
        """Make *call* of the SSLObject until it needs no more bytes."""
        try:
            result = await self.attempt(call, *args)
        except ssl.SSLError:
            # An alert says why.
            with contextlib.suppress(ConnectionError):
                await self.flush()
            raise
        await self.flush()
        return result

    async def handshake(self) -> None:
        """Shake hands; where that fails, the socket is closed."""
        try:
            await self.drive(self.tls.do_handshake)
        except BaseException:
            self.close()
            raise

    def seal(self, data: bytes) -> bytes:
        """The records that carry *data*, not sent."""
        assert not self.outgoing.pending
        view = memoryview(data)
        while view:
            view = view[self.tls.write(view) :]
        return self.outgoing.read()

    def seal_close(self) -> bytes:
        """The close_notify, not sent."""
        assert not self.outgoing.pending
        with contextlib.suppress(ssl.SSLError):
            self.tls.unwrap()
        return self.outgoing.read()

    async def write(self, data: bytes) -> None:
        await self.send(self.seal(data))

    async def read(self, size: int = 65536) -> bytes:
        """Some data; b"" at a close_notify; SSLEOFError at a ragged end."""
        try:
            return await self.drive(self.tls.read, size)
        except ssl.SSLZeroReturnError:
            return b""

    async def read_exactly(self, size: int) -> bytes:
        got = bytearray()
        while len(got) < size:
            chunk = await self.read(size - len(got))
            assert chunk, f"close_notify after {len(got)} of {size} bytes"
            got += chunk
        return bytes(got)

    async def close_notify(self) -> None:
        """Say that no more data comes; the socket stays open."""
        await self.send(self.seal_close())


class InnerPeer(WirePeer):
    """The peer of a TLS connection within a TLS connection."""

    def __init__(
        self, outer: WirePeer, context: ssl.SSLContext, server_side: bool
    ) -> None:
        super().__init__(outer.sock, context, server_side)
        self.outer = outer

    async def send(self, data: Any) -> None:
        await self.outer.write(data)

    async def recv(self, size: int = 65536) -> bytes:
        return await self.outer.read(size)


class TextPeer(Peer):
    """A TLS peer as tests of any transport have it: it sends plain text."""

    def __init__(self, wire: WirePeer) -> None:
        super().__init__(wire.sock)
        self.wire = wire

    async def send(self, data: Any) -> None:
        await self.wire.write(data)

    async def recv(self, size: int = 65536) -> bytes:
        """Some data; the end is answered."""
        try:
            data = await self.wire.read(size)
        except ssl.SSLEOFError:
            return b""
        if not data:
            with contextlib.suppress(ConnectionError):
                await self.wire.close_notify()
        return data

    def send_eof(self) -> None:
        wire = self.wire.seal_close()
        assert self.sock.send(wire) == len(wire)


class TlsLink(Link):
    """A TLS transport under test, its protocol, and the far end."""

    peer: WirePeer

    @property
    def socket(self) -> Any:
        return self.transport.get_extra_info("socket")

    def fill(self, chunk: bytes = bytes(65536)) -> int:
        """Write until the protocol is paused; return how much that was."""
        total = 0
        while not self.protocol.count("pause"):
            self.transport.write(chunk)
            total += len(chunk)
            assert total < 64 * MIB, "the protocol is never paused"
        return total

    async def settle(self) -> None:
        """One byte each way: what follows a handshake is over then."""
        self.transport.write(b"?")
        assert await self.peer.read_exactly(1) == b"?"
        before = len(self.protocol.data)
        await self.peer.write(b"!")
        await self.protocol.wait_data(before + 1)

    def clear(self) -> None:
        """Forget the data until now."""
        self.protocol.data.clear()
        events = self.protocol.events
        events[:] = [event for event in events if event[0] != "data"]


async def open_plain(protocol: Any) -> tuple[Any, socket.socket]:
    """A plain transport of *protocol*, and its peer's socket."""
    near, far = tcp_socketpair()
    near.setblocking(False)
    loop = asyncio.get_running_loop()
    transport, _ = await loop.create_connection(lambda: protocol, sock=near)
    return transport, far


def start_tls(
    transport: Any, protocol: Any, side: str, near: Any = None, **options: Any
) -> Coroutine[Any, Any, Any]:
    """The call of start_tls that makes *transport* TLS's *side*."""
    server_side = side.endswith("server")
    if not server_side:
        options = {"server_hostname": "localhost", **options}
    return asyncio.get_running_loop().start_tls(
        transport,
        protocol,
        near or contexts(side)[0],
        server_side=server_side,
        **options,
    )


async def meet(
    side: str, protocol: Any, near: Any, far: Any, **options: Any
) -> tuple[Any, WirePeer]:
    """The task of what connects, and the peer; no handshake yet.

    A server has no task: connection_made says when it is connected.
    """
    loop, task = asyncio.get_running_loop(), None
    if side == "client":
        options = {"server_hostname": "localhost", **options}
        with listening_socket() as listener:
            address = listener.getsockname()
            connecting = loop.create_connection(
                lambda: protocol, *address, ssl=near, **options
            )
            task = loop.create_task(connecting)
            sock, _ = await loop.sock_accept(listener)
    elif side == "server":
        server = await loop.create_server(
            lambda: protocol, "127.0.0.1", 0, ssl=near, **options
        )
        sock = socket.socket()
        sock.setblocking(False)
        await loop.sock_connect(sock, server.sockets[0].getsockname())
        server.close()
    else:
        plain, sock = await open_plain(protocol)
        task = loop.create_task(
            start_tls(plain, protocol, side, near, **options)
        )
    return task, WirePeer(sock, far, side.endswith("client"))


@contextlib.asynccontextmanager
async def tls_link(
    protocol: Any = None,
    *,
    side: str = "client",
    version: str | None = None,
    near: Any = None,
    far: Any = None,
    **options: Any,
) -> AsyncIterator[TlsLink]:
    """A connected TlsLink; torn down and checked at the end.

    *side* is that of the transport under test; *near* and *far* are the
    contexts of it and of its peer; the rest are options of the call that
    opens the transport.
    """
    protocol = protocol or Recorder()
    contexts_ = contexts(side, version)
    near, far = near or contexts_[0], far or contexts_[1]
    task, peer = await meet(side, protocol, near, far, **options)
    await peer.handshake()
    if task is None:
        await protocol.wait_for("made")
    elif side == "client":
        await task
    else:
        protocol.transport = await task
    async with TlsLink(protocol.transport, protocol, peer) as link:
        yield link
