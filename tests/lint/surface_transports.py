"""One transport of each kind, made on a loop and closed again."""

from __future__ import annotations

import asyncio
import contextlib
import os
import socket
import ssl
import subprocess
import sys
import tempfile
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any, NamedTuple

from . import surface_table as table

CERTS = Path(__file__).resolve().parents[1] / "certs"


class Kind(NamedTuple):
    """What a transport has to be."""

    base: type
    tables: tuple[str, ...]
    extras: dict[str, Any]


TCP_EXTRAS = {
    "socket": asyncio.trsock.TransportSocket,
    "sockname": tuple,
    "peername": tuple,
}
STREAM = (table.BASE, table.READ, table.LIMITS, table.WRITE)

KINDS = {
    "tcp": Kind(asyncio.Transport, STREAM, TCP_EXTRAS),
    "unix": Kind(
        asyncio.Transport,
        STREAM,
        {**TCP_EXTRAS, "sockname": str, "peername": str},
    ),
    "tls": Kind(
        asyncio.Transport,
        STREAM,
        {
            **TCP_EXTRAS,
            "sslcontext": ssl.SSLContext,
            "ssl_object": ssl.SSLObject,
            "peercert": dict,
            "cipher": tuple,
            "compression": type(None),
        },
    ),
    "datagram": Kind(
        # asyncio's own is one from 3.12 on
        asyncio.DatagramTransport
        if sys.version_info >= (3, 12)
        else asyncio.BaseTransport,
        (table.BASE, table.LIMITS, table.DATAGRAM),
        TCP_EXTRAS,
    ),
    "read_pipe": Kind(
        asyncio.ReadTransport,
        (table.BASE, table.READ),
        {"pipe": object},
    ),
    "write_pipe": Kind(
        asyncio.WriteTransport,
        (table.BASE, table.LIMITS, table.WRITE),
        {"pipe": object},
    ),
    "subprocess": Kind(
        asyncio.SubprocessTransport,
        (table.BASE, table.SUBPROCESS),
        {"subprocess": subprocess.Popen},
    ),
}


class Noting(asyncio.Protocol, asyncio.DatagramProtocol):
    """Tells when the connection is lost."""

    def __init__(self) -> None:
        self.lost = asyncio.get_running_loop().create_future()

    def connection_lost(self, exc: BaseException | None) -> None:
        if not self.lost.done():
            self.lost.set_result(exc)


class NotingProcess(Noting, asyncio.SubprocessProtocol):
    """The same of a process."""


def contexts() -> tuple[ssl.SSLContext, ssl.SSLContext]:
    """A server's and a client's TLS context, for localhost."""
    server = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    server.load_cert_chain(CERTS / "localhost.pem", CERTS / "localhost.key")
    client = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    client.load_verify_locations(CERTS / "ca.pem")
    return server, client


@contextlib.asynccontextmanager
async def made(kind: str, loop: Any) -> AsyncIterator[Any]:
    """A transport of this kind; closed, with its other end, after."""
    async with contextlib.AsyncExitStack() as stack:
        transport, protocol = await globals()[f"make_{kind}"](loop, stack)
        try:
            yield transport
        finally:
            transport.close()
            await protocol.lost


async def make_tcp(loop: Any, stack: Any) -> Any:
    server = await loop.create_server(Noting, "127.0.0.1", 0)
    stack.push_async_callback(ended, server)
    return await loop.create_connection(
        Noting, *server.sockets[0].getsockname()
    )


async def make_unix(loop: Any, stack: Any) -> Any:
    path = stack.enter_context(tempfile.TemporaryDirectory()) + "/socket"
    server = await loop.create_unix_server(Noting, path)
    stack.push_async_callback(ended, server)
    return await loop.create_unix_connection(Noting, path)


async def make_tls(loop: Any, stack: Any) -> Any:
    for_server, for_client = contexts()
    server = await loop.create_server(Noting, "127.0.0.1", 0, ssl=for_server)
    stack.push_async_callback(ended, server)
    return await loop.create_connection(
        Noting,
        *server.sockets[0].getsockname(),
        ssl=for_client,
        server_hostname="localhost",
    )


async def make_datagram(loop: Any, stack: Any) -> Any:
    far = stack.enter_context(socket.socket(type=socket.SOCK_DGRAM))
    far.bind(("127.0.0.1", 0))
    return await loop.create_datagram_endpoint(
        Noting, remote_addr=far.getsockname()
    )


async def make_read_pipe(loop: Any, stack: Any) -> Any:
    near, far = os.pipe()
    stack.callback(os.close, far)
    return await loop.connect_read_pipe(Noting, open(near, "rb", 0))


async def make_write_pipe(loop: Any, stack: Any) -> Any:
    far, near = os.pipe()
    stack.callback(os.close, far)
    return await loop.connect_write_pipe(Noting, open(near, "wb", 0))


async def make_subprocess(loop: Any, stack: Any) -> Any:
    transport, protocol = await loop.subprocess_exec(
        NotingProcess,
        *(sys.executable, "-S", "-c", "input()"),
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
    )
    return transport, protocol


async def ended(server: Any) -> None:
    """Close a server and wait for its connections to end."""
    server.close()
    await server.wait_closed()
    for _ in range(3):
        await asyncio.sleep(0)
