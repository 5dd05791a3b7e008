"""The server of a soak: an echo behind each kind of connection.

It runs in a process of its own on the loop under test.  Each second it prints
a line of JSON about itself; a line on its standard input is a command.
"""

from __future__ import annotations

import asyncio
import contextlib
import ctypes
import gc
import json
import os
import resource
import socket
import ssl
import sys
from collections.abc import Awaitable
from pathlib import Path
from typing import Any

import fastloop

CERTS = Path(__file__).parent.parent / "certs"

#: What a connection of each kind is served by, and over which socket; sock_*
#: calls besides.
KINDS = ("protocol", "buffered", "unix", "streams", "tls", "upgrade")


class Mallinfo(ctypes.Structure):
    """What mallinfo2() returns."""

    _fields_ = [
        (name, ctypes.c_size_t)
        for name in "arena ordblks smblks hblks hblkhd usmblks fsmblks "
        "uordblks fordblks keepcost".split()
    ]


def allocated_kib() -> int:
    """KiB that malloc() has given out; Python's small objects beside."""
    libc = ctypes.CDLL(None)
    libc.mallinfo2.restype = Mallinfo
    info = libc.mallinfo2()
    return int(info.uordblks + info.hblkhd) // 1024


class Flow:
    """Stop reading while the peer does not read."""

    transport: asyncio.Transport

    def __init__(self, echoes: Echoes) -> None:
        self.echoes = echoes

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self.transport = transport
        self.echoes.open += 1

    def connection_lost(self, exc: Exception | None) -> None:
        self.echoes.open -= 1

    def pause_writing(self) -> None:
        if not self.transport.is_closing():
            self.transport.pause_reading()

    def resume_writing(self) -> None:
        if not self.transport.is_closing():
            self.transport.resume_reading()


class Echo(Flow, asyncio.Protocol):
    def data_received(self, data: bytes) -> None:
        self.transport.write(data)


class BufferedEcho(Flow, asyncio.BufferedProtocol):
    def __init__(self, echoes: Echoes) -> None:
        super().__init__(echoes)
        self.buffer = bytearray(32 * 1024)

    def get_buffer(self, sizehint: int) -> bytearray:
        return self.buffer

    def buffer_updated(self, nbytes: int) -> None:
        self.transport.write(bytes(memoryview(self.buffer)[:nbytes]))


class Echoes:
    """All listeners, and how many connections they have."""

    def __init__(self, folder: str) -> None:
        self.folder = folder
        self.open = 0
        self.ports: dict[str, int] = {}
        self.servers: dict[str, asyncio.Server] = {}
        self.tasks: set[asyncio.Task[None]] = set()
        self.reports: list[str] = []
        self.context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
        self.context.load_cert_chain(
            CERTS / "localhost.pem", CERTS / "localhost.key"
        )

    # -- one connection ------------------------------------------------------

    async def streams(
        self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> None:
        self.open += 1
        try:
            while data := await reader.read(64 * 1024):
                writer.write(data)
                await writer.drain()
        except OSError:
            pass  # the peer reset it
        finally:
            self.open -= 1
            writer.close()
            with contextlib.suppress(OSError):
                await writer.wait_closed()

    async def upgrade(
        self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> None:
        try:
            if await reader.readline() != b"upgrade\n":
                writer.close()
                return
            writer.write(b"go\n")
            await writer.start_tls(self.context)
        except OSError:
            writer.close()
            return
        await self.streams(reader, writer)

    async def sock(self, sock: socket.socket) -> None:
        loop = asyncio.get_running_loop()
        self.open += 1
        try:
            with sock, contextlib.suppress(OSError):
                while data := await loop.sock_recv(sock, 64 * 1024):
                    await loop.sock_sendall(sock, data)
        finally:
            self.open -= 1

    # -- listeners -----------------------------------------------------------

    async def start(self, kind: str) -> None:
        """Listen, at the port of an earlier listener of this kind."""
        loop = asyncio.get_running_loop()
        more: dict[str, Any] = {"backlog": 4096}
        if kind == "unix":
            path = f"{self.folder}/soak"
            await loop.create_unix_server(lambda: Echo(self), path, **more)
            return
        here = ("127.0.0.1", self.ports.get(kind, 0))
        if kind in ("streams", "upgrade"):
            handler = getattr(self, kind)
            server = await asyncio.start_server(handler, *here, **more)
        else:
            make = BufferedEcho if kind == "buffered" else Echo
            more["ssl"] = self.context if kind == "tls" else None
            server = await loop.create_server(
                lambda: make(self), *here, **more
            )
        self.servers[kind] = server
        self.ports[kind] = server.sockets[0].getsockname()[1]

    async def accept_sock(self) -> None:
        loop = asyncio.get_running_loop()
        listener = socket.socket()
        with listener:
            listener.bind(("127.0.0.1", 0))
            listener.listen(4096)
            listener.setblocking(False)
            self.ports["sock"] = listener.getsockname()[1]
            while True:
                try:
                    sock, _ = await loop.sock_accept(listener)
                except OSError:
                    await asyncio.sleep(0.1)  # out of descriptors
                    continue
                sock.setblocking(False)
                self.begin(self.sock(sock))

    def begin(self, coro: Awaitable[None]) -> None:
        task = asyncio.ensure_future(coro)
        self.tasks.add(task)
        task.add_done_callback(self.tasks.discard)

    # -- commands ------------------------------------------------------------

    async def restart(self) -> None:
        """Close a listener and open it again, its connections untouched."""
        for kind in ("protocol", "streams", "tls"):
            self.servers.pop(kind).close()
            await asyncio.sleep(0)
            await self.start(kind)

    async def starve(self) -> None:
        """Have no descriptor to spare for a moment."""
        limits = resource.getrlimit(resource.RLIMIT_NOFILE)
        used = len(os.listdir("/proc/self/fd"))
        resource.setrlimit(resource.RLIMIT_NOFILE, (used, limits[1]))
        await asyncio.sleep(0.3)
        resource.setrlimit(resource.RLIMIT_NOFILE, limits)

    async def settle(self) -> None:
        """Bring memory to what is in use."""
        gc.collect()
        ctypes.CDLL(None).malloc_trim(0)

    def state(self) -> dict[str, object]:
        with open("/proc/self/statm", encoding="ascii") as file:
            pages = int(file.read().split()[1])
        return {
            "open": self.open,
            "rss_kib": pages * resource.getpagesize() // 1024,
            "malloc_kib": allocated_kib(),
            "blocks": sys.getallocatedblocks(),
            "fds": len(os.listdir("/proc/self/fd")),
            "cpu_s": sum(os.times()[:2]),
            "reports": self.reports,
        }


async def main(folder: str) -> None:
    loop = asyncio.get_running_loop()
    echoes = Echoes(folder)

    def report(_: object, context: dict[str, object]) -> None:
        exc = context.get("exception")
        # asyncio reports that there are no descriptors, each second.
        if not (isinstance(exc, OSError) and exc.errno in (23, 24)):
            echoes.reports.append(f"{context.get('message')}: {exc!r}")

    loop.set_exception_handler(report)
    for kind in KINDS:
        await echoes.start(kind)
    echoes.begin(echoes.accept_sock())
    await asyncio.sleep(0)
    print(json.dumps(echoes.ports), flush=True)
    commands: asyncio.Queue[str] = asyncio.Queue()
    loop.add_reader(0, lambda: commands.put_nowait(os.read(0, 64).decode()))
    while True:
        try:
            words = await asyncio.wait_for(commands.get(), 1)
        except TimeoutError:
            words = ""
        if words == "":
            print(json.dumps(echoes.state()), flush=True)
        for word in words.split():
            if word == "end":
                return
            await getattr(echoes, word)()


if __name__ == "__main__":
    fastloop.run(main(sys.argv[1]))
