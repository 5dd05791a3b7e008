"""Bytes go one way: to a Protocol, to streams, from a Protocol, from a file.

    python benchmarks/servers/oneway.py --loop NAME --mode receive

The sender writes 64 KiB an iteration until it is paused: a loop may put off
what it writes, and with it the call that says so, to the end of the turn.
sendfile sends a file of 1 MiB again and again.
"""

from __future__ import annotations

import asyncio
import tempfile

import serving

CHUNK = bytes(64 * 1024)
FILE_SIZE = 1024 * 1024


class Receiver(asyncio.Protocol):
    """Counts what comes."""

    count = 0

    def data_received(self, data: bytes) -> None:
        self.count += len(data)


class Sender(asyncio.Protocol):
    """Sends for as long as the other end takes it."""

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
    """Sends one file again and again."""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        loop = asyncio.get_running_loop()
        self.task = loop.create_task(self.send(loop, transport))

    async def send(
        self,
        loop: asyncio.AbstractEventLoop,
        transport: asyncio.BaseTransport,
    ) -> None:
        with tempfile.TemporaryFile() as file:
            file.truncate(FILE_SIZE)
            while not transport.is_closing():
                try:
                    await loop.sendfile(transport, file, 0)
                except (ConnectionError, RuntimeError):
                    break
        transport.abort()


async def sink(
    reader: asyncio.StreamReader, writer: asyncio.StreamWriter
) -> None:
    try:
        while await reader.read(len(CHUNK)):
            pass
    except ConnectionError:
        pass
    finally:
        writer.close()


PROTOCOLS = {"receive": Receiver, "send": Sender, "sendfile": FileSender}


async def has_sendfile() -> None:
    """Raise what the loop raises where it has no sendfile."""
    loop = asyncio.get_running_loop()
    server = await loop.create_server(asyncio.Protocol, "127.0.0.1", 0)
    transport, _ = await loop.create_connection(
        asyncio.Protocol, "127.0.0.1", serving.port_of(server)
    )
    with tempfile.TemporaryFile() as file:
        file.truncate(1)
        await loop.sendfile(transport, file, 0)
    transport.abort()
    server.close()


def main() -> None:
    """Serve as the command line says."""
    parser = serving.parser(__doc__)
    parser.add_argument("--mode", choices=(*PROTOCOLS, "streams"))
    args = parser.parse_args()

    async def forever() -> None:
        loop = asyncio.get_running_loop()
        options = {"backlog": 1024, "ssl": serving.tls_context(args)}
        if args.mode == "sendfile":
            await has_sendfile()
        if args.mode == "streams":
            server = await asyncio.start_server(
                sink, "127.0.0.1", 0, **options
            )
        else:
            server = await loop.create_server(
                PROTOCOLS[args.mode], "127.0.0.1", 0, **options
            )
        serving.announce(serving.port_of(server))
        await loop.create_future()

    serving.serve(args, forever)


if __name__ == "__main__":
    main()
