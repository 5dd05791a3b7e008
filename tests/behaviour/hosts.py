"""Servers at an address of each kind, and those that visit them.

A test that takes `host` runs over TCP, IPv6 and Unix sockets; over the first
alone with `only_tcp`.  The servers are closed after the test.
"""

from __future__ import annotations

import asyncio
import socket
import weakref
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from net_helpers import Recorder, spin

FAMILIES = {
    "tcp": socket.AF_INET,
    "ipv6": socket.AF_INET6,
    "unix": socket.AF_UNIX,
}
NAMES = {"tcp": "127.0.0.1", "ipv6": "::1"}
#: What a connect to a server that was closed raises; from 3.13 on it takes
#: its path with it.
CLOSED = (ConnectionRefusedError, FileNotFoundError)

only_tcp = pytest.mark.parametrize("address_kind", ["tcp"])


class Made(list[Any]):
    """A factory of protocols, and those it made."""

    def __init__(self, factory: Callable[[], Any] = Recorder) -> None:
        self.factory = factory

    def __call__(self) -> Any:
        self.append(self.factory())
        return self[-1]


class Host:
    """What serves at one address: `made` are its protocols."""

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        kind: str = "tcp",
        path: Path | None = None,
    ) -> None:
        self.loop = loop
        self.kind = kind
        self.path = path
        self.made = Made()
        self.address: Any = None
        self._servers: weakref.WeakSet[asyncio.Server] = weakref.WeakSet()

    async def serve(self, factory: Any = None, **options: Any) -> Any:
        """Return a server at the address, which is at first made up."""
        loop = self.loop
        create = self._choose(loop.create_server, loop.create_unix_server)
        where = () if "sock" in options else self._where()
        server = await create(factory or self.made, *where, **options)
        self._servers.add(server)
        self.address = server.sockets[0].getsockname()
        return server

    async def connect(self, factory: Any = Recorder, **options: Any) -> Any:
        """Return a client's transport and protocol."""
        loop = self.loop
        create = self._choose(
            loop.create_connection, loop.create_unix_connection
        )
        return await create(factory, *self._where(), **options)

    async def open(self, **options: Any) -> Any:
        """Return a client's reader and writer."""
        start = self._choose(
            asyncio.open_connection, asyncio.open_unix_connection
        )
        return await start(*self._where(), **options)

    def _choose(self, tcp: Any, unix: Any) -> Any:
        return unix if self.kind == "unix" else tcp

    def _where(self) -> Any:
        if self.kind == "unix":
            return (str(self.path),)
        return self.address[:2] if self.address else (NAMES[self.kind], 0)

    async def visit(self) -> tuple[Any, Any]:
        """Return a client's protocol, and the one made for it."""
        count = len(self.made)
        _, protocol = await self.connect()
        await spin(lambda: len(self.made) > count)
        await self.made[-1].wait_for("made")
        return protocol, self.made[-1]

    def bound(self) -> Any:
        """Return a socket that is bound to a new address."""
        sock = socket.socket(FAMILIES[self.kind])
        sock.bind(*self._choose([(NAMES.get(self.kind), 0)], self._where()))
        return sock

    def plain(self) -> socket.socket:
        """Return a plain socket that is connected."""
        sock = socket.socket(FAMILIES[self.kind])
        sock.connect(self.address)
        return sock

    def close(self) -> None:
        for server in list(self._servers):
            server.close()


@pytest.fixture(params=FAMILIES)
def address_kind(request: pytest.FixtureRequest) -> str:
    kind: str = request.param
    return kind


@pytest.fixture
def host(
    loop: asyncio.AbstractEventLoop, address_kind: str, tmp_path: Path
) -> Iterator[Host]:
    """Return what serves at an address of each kind."""
    host = Host(loop, address_kind, tmp_path / "s")
    yield host
    if not loop.is_closed():
        host.close()
