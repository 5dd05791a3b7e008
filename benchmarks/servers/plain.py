"""Servers of asyncio alone, written the way a program that cares would.

    python benchmarks/servers/plain.py --loop NAME --mode protocol

They echo: a Protocol (also after 0.2 ms of work), a BufferedProtocol, streams
(also by lines), sock_* calls, UDP.  Or bytes go one way: receive and sink
read, send and sendfile write.  With --tls over TLS; a Protocol with
--unix on a Unix socket.

BufferedProtocol has one buffer a connection and writes a copy of what came:
the next read may overwrite the buffer before a slow peer has taken the last.
The sender writes 64 KiB an iteration until it is paused: a loop may put off
what it writes, and with it the call that says so, to the end of the turn.
"""

from __future__ import annotations

import argparse
import asyncio
import socket
import tempfile
from collections.abc import Awaitable, Callable
from contextlib import suppress
from typing import Any

import serving
from harness import tls_context
from harness.first_client import Echo

BUFFER_SIZE = 64 * 1024
CHUNK = bytes(BUFFER_SIZE)
WORK = 16_000


class Worker(Echo):
    """Works for about 0.2 ms before it answers."""

    def data_received(self, data: bytes) -> None:
        for _ in range(WORK):
            pass
        self.transport.write(data)


class BufferedEcho(asyncio.BufferedProtocol):
    transport: asyncio.Transport

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = transport
        self.buffer = memoryview(bytearray(BUFFER_SIZE))

    def get_buffer(self, sizehint: int) -> memoryview:
        return self.buffer

    def buffer_updated(self, nbytes: int) -> None:
        self.transport.write(bytes(self.buffer[:nbytes]))


class Receiver(asyncio.Protocol):
    count = 0

    def data_received(self, data: bytes) -> None:
        self.count += len(data)


class Sender(asyncio.Protocol):
    transport: asyncio.Transport

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = transport
        self.loop = asyncio.get_running_loop()
        self.next = self.loop.call_soon(self.send)

    def send(self) -> None:
        # First: a write may say that this one is one too many.
        self.next = self.loop.call_soon(self.send)
        self.transport.write(CHUNK)

    def pause_writing(self) -> None:
        self.next.cancel()

    def resume_writing(self) -> None:
        self.next.cancel()
        self.next = self.loop.call_soon(self.send)

    def connection_lost(self, exc: Exception | None) -> None:
        self.next.cancel()


class FileSender(asyncio.Protocol):
    size_bytes = 1024 * 1024

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.task = asyncio.ensure_future(self.send(transport))

    async def send(self, transport: asyncio.BaseTransport) -> None:
        loop = asyncio.get_running_loop()
        with tempfile.TemporaryFile() as file:
            file.truncate(self.size_bytes)
            while not transport.is_closing():
                try:
                    await loop.sendfile(transport, file, 0)
                except NotImplementedError as error:
                    serving.fail(error)
                except (ConnectionError, RuntimeError):
                    break
        transport.abort()


class SmallFileSender(FileSender):
    size_bytes = 64 * 1024


class Datagrams(asyncio.DatagramProtocol):
    transport: asyncio.DatagramTransport

    def connection_made(self, transport: asyncio.DatagramTransport) -> None:
        self.transport = transport

    def datagram_received(self, data: bytes, addr: tuple) -> None:
        self.transport.sendto(data, addr)


def on_streams(
    read: Callable[[asyncio.StreamReader], Awaitable[bytes]],
    echoes: bool = True,
) -> Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]:
    async def serve(
        reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> None:
        with suppress(ConnectionError):
            while data := await read(reader):
                if echoes:
                    writer.write(data)
                    await writer.drain()
        writer.close()

    return serve


async def serve_sockets(args: argparse.Namespace) -> None:
    loop = asyncio.get_running_loop()

    async def echo(sock: socket.socket) -> None:
        with sock, suppress(ConnectionError):
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            while data := await loop.sock_recv(sock, BUFFER_SIZE):
                await loop.sock_sendall(sock, data)

    tasks = set()
    with socket.create_server(("127.0.0.1", 0), backlog=1024) as listener:
        listener.setblocking(False)
        serving.announce(listener.getsockname()[1])
        while True:
            sock, _ = await loop.sock_accept(listener)
            sock.setblocking(False)
            task = loop.create_task(echo(sock))
            tasks.add(task)
            task.add_done_callback(tasks.discard)


async def serve_datagrams(args: argparse.Namespace) -> None:
    loop = asyncio.get_running_loop()
    transport, _ = await loop.create_datagram_endpoint(
        Datagrams, local_addr=("127.0.0.1", 0)
    )
    serving.announce(transport.get_extra_info("sockname")[1])
    await serving.forever()


STREAMS = {
    "streams": on_streams(lambda it: it.read(BUFFER_SIZE)),
    "sink": on_streams(lambda it: it.read(BUFFER_SIZE), False),
    "readline": on_streams(lambda it: it.readline()),
}
CLIENTS: dict[str, Callable[..., Any]] = {
    "protocol": Echo,
    "work": Worker,
    "buffered": BufferedEcho,
    "receive": Receiver,
    "send": Sender,
    "sendfile": FileSender,
    "sendfile64k": SmallFileSender,
    **STREAMS,
}
OTHERS = {"sock": serve_sockets, "udp": serve_datagrams}


async def serve_connections(args: argparse.Namespace) -> None:
    options = {"backlog": 1024, "ssl": tls_context() if args.tls else None}
    loop = asyncio.get_running_loop()
    where = (args.unix,) if args.unix else ("127.0.0.1", 0)
    if args.sock:
        where, options["sock"] = (), args.sock
    start = loop.create_unix_server if args.unix else loop.create_server
    if args.mode in STREAMS:
        start = asyncio.start_server
    server = await start(CLIENTS[args.mode], *where, **options)
    serving.announce(0 if args.unix else serving.port_of(server))
    await serving.forever()


if __name__ == "__main__":
    parser = serving.parser(__doc__)
    parser.add_argument("--mode", choices=(*CLIENTS, *OTHERS))
    parser.add_argument("--unix", metavar="PATH")
    args = parser.parse_args()
    serving.serve(args, OTHERS.get(args.mode, serve_connections))
