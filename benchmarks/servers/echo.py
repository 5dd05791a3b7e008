"""An echo server, written the way a program that cares would write it.

    python benchmarks/servers/echo.py --loop NAME --mode protocol

The modes are Protocol, BufferedProtocol and streams, the last also by lines
and by messages of --size bytes; with --tls over TLS, with --unix on a Unix
socket.  BufferedProtocol has one buffer a connection and writes a copy of
what came: the next read may overwrite the buffer before a slow peer has
taken the last.
"""

from __future__ import annotations

import argparse
import asyncio
from collections.abc import Awaitable, Callable

import serving

BUFFER_SIZE = 64 * 1024


class Echo(asyncio.Protocol):
    """Writes what it is given."""

    transport: asyncio.Transport

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = transport

    def data_received(self, data: bytes) -> None:
        self.transport.write(data)


class BufferedEcho(asyncio.BufferedProtocol):
    """Writes a copy of what it was read into its own buffer."""

    transport: asyncio.Transport

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = transport
        self.buffer = memoryview(bytearray(BUFFER_SIZE))

    def get_buffer(self, sizehint: int) -> memoryview:
        return self.buffer

    def buffer_updated(self, nbytes: int) -> None:
        self.transport.write(bytes(self.buffer[:nbytes]))


def echo_stream(
    read: Callable[[asyncio.StreamReader], Awaitable[bytes]],
) -> Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]:
    """Return a client's coroutine function that reads by `read`."""

    async def echo(
        reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> None:
        try:
            while data := await read(reader):
                writer.write(data)
                await writer.drain()
        except (ConnectionError, asyncio.IncompleteReadError):
            pass
        finally:
            writer.close()

    return echo


STREAMS: dict[str, Callable[[int], Callable[..., Awaitable[bytes]]]] = {
    "streams": lambda size: lambda reader: reader.read(BUFFER_SIZE),
    "readline": lambda size: lambda reader: reader.readline(),
    "readexactly": lambda size: lambda reader: reader.readexactly(size),
}
PROTOCOLS: dict[str, Callable[[], asyncio.BaseProtocol]] = {
    "protocol": Echo,
    "buffered": BufferedEcho,
}


async def start(args: argparse.Namespace) -> asyncio.AbstractServer:
    """Listen as the command line says."""
    options = {"backlog": 1024, "ssl": serving.tls_context(args)}
    loop = asyncio.get_running_loop()
    if args.mode in STREAMS:
        echo = echo_stream(STREAMS[args.mode](args.size))
        if args.unix:
            return await asyncio.start_unix_server(echo, args.unix, **options)
        return await asyncio.start_server(echo, "127.0.0.1", 0, **options)
    protocol = PROTOCOLS[args.mode]
    if args.unix:
        return await loop.create_unix_server(protocol, args.unix, **options)
    return await loop.create_server(protocol, "127.0.0.1", 0, **options)


def main() -> None:
    """Serve as the command line says."""
    parser = serving.parser(__doc__)
    parser.add_argument(
        "--mode", choices=(*PROTOCOLS, *STREAMS), default="protocol"
    )
    parser.add_argument("--size", type=int, default=1024)
    parser.add_argument("--unix", metavar="PATH")
    args = parser.parse_args()

    async def forever() -> None:
        server = await start(args)
        serving.announce(0 if args.unix else serving.port_of(server))
        await asyncio.get_running_loop().create_future()

    serving.serve(args, forever)


if __name__ == "__main__":
    main()
