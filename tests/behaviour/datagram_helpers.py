"""What the datagram tests share: a protocol that writes everything down."""

from __future__ import annotations

import asyncio
import contextlib
import socket
import sys
from collections.abc import AsyncIterator, Callable
from typing import Any

import pytest
from net_helpers import PY313, spin
from patience import PATIENCE

#: What each queued datagram counts beyond its data.
HEADER = 8 if PY313 else 0


class Datagrams(asyncio.DatagramProtocol):
    """`events` is a list of (name, value ...); a hook runs after its note."""

    def __init__(self, **hooks: Callable[..., Any]) -> None:
        self.events: list[tuple[Any, ...]] = []
        self.transport: Any = None
        self._hooks = hooks

    def _note(self, name: str, *values: Any) -> None:
        self.events.append((name, *values))
        if name in self._hooks:
            self._hooks[name](self, *values)

    def connection_made(self, transport: Any) -> None:
        self.transport = transport
        self._note("made")

    def datagram_received(self, data: bytes, addr: Any) -> None:
        self._note("datagram", data, addr)

    def error_received(self, exc: Exception) -> None:
        self._note("error", exc)

    def pause_writing(self) -> None:
        self._note("pause")

    def resume_writing(self) -> None:
        self._note("resume")

    def connection_lost(self, exc: Exception | None) -> None:
        self._note("lost", exc)

    @property
    def names(self) -> list[str]:
        """The names of the events so far."""
        return [event[0] for event in self.events]

    @property
    def data(self) -> list[bytes]:
        """The datagrams so far."""
        return [event[1] for event in self.events if event[0] == "datagram"]

    async def wait(self, name: str, count: int = 1) -> Any:
        """Wait for the count-th event of a name; its first value."""
        await spin(lambda: self.names.count(name) >= count)
        event = [event for event in self.events if event[0] == name][-1]
        return event[1] if len(event) > 1 else None


@contextlib.asynccontextmanager
async def endpoint(
    protocol: Datagrams | None = None, **how: Any
) -> AsyncIterator[Datagrams]:
    """Open an endpoint, on 127.0.0.1 by default; close it in the end."""
    if not how:
        how = {"local_addr": ("127.0.0.1", 0)}
    loop = asyncio.get_running_loop()
    protocol = protocol or Datagrams()
    transport, _ = await loop.create_datagram_endpoint(lambda: protocol, **how)
    try:
        yield protocol
    finally:
        if "lost" not in protocol.names:
            transport.abort()
            await protocol.wait("lost")


@contextlib.contextmanager
def plain(family: int = socket.AF_INET, address: Any = ("127.0.0.1", 0)):
    """A plain datagram socket, bound unless the address is None."""
    with socket.socket(family, socket.SOCK_DGRAM) as sock:
        if address is not None:
            sock.bind(address)
        sock.settimeout(PATIENCE)
        yield sock


@contextlib.asynccontextmanager
async def stuffed(
    tmp_path: Any, connected: bool, **hooks: Callable[..., Any]
) -> AsyncIterator[tuple[Datagrams, socket.socket, Any]]:
    """An endpoint whose peer, a Unix socket, takes no more.

    Yields the protocol, the peer and the address to send to.
    """
    if sys.platform != "linux":
        pytest.skip("a full Unix socket is an error there")
    path = str(tmp_path / "peer")
    with plain(socket.AF_UNIX, path) as peer:
        how = (
            {"remote_addr": path}
            if connected
            else {"local_addr": str(tmp_path / "own")}
        )
        async with endpoint(
            Datagrams(**hooks), family=socket.AF_UNIX, **how
        ) as protocol:
            address = None if connected else path
            transport = protocol.transport
            number = 0
            while not transport.get_write_buffer_size():
                transport.sendto(b"%04d" % number, address)
                number += 1
            yield protocol, peer, address


async def drain(peer: socket.socket, count: int) -> list[bytes]:
    """Take so many datagrams, letting the loop run meanwhile."""
    peer.setblocking(False)
    got: list[bytes] = []
    while len(got) < count:
        with contextlib.suppress(BlockingIOError):
            got.append(peer.recv(1 << 20))
        await asyncio.sleep(0)
    return got
