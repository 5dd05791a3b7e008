"""A TCP echo server, written the way a program that cares would write it.

    python benchmarks/servers/echo.py --loop NAME --mode protocol

The modes are Protocol, BufferedProtocol and streams, with --tls over TLS.
BufferedProtocol has one buffer a connection and writes a copy of what came:
the next read may overwrite the buffer before a slow peer has taken the last.
"""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import Callable

import serving

BUFFER_SIZE = 64 * 1024
CERTIFICATES = serving.ROOT / "tests" / "certs"


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


async def echo_stream(
    reader: asyncio.StreamReader, writer: asyncio.StreamWriter
) -> None:
    try:
        while data := await reader.read(BUFFER_SIZE):
            writer.write(data)
            await writer.drain()
    except ConnectionError:
        pass
    finally:
        writer.close()


PROTOCOLS: dict[str, Callable[[], asyncio.BaseProtocol]] = {
    "protocol": Echo,
    "buffered": BufferedEcho,
}


def tls_context() -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(
        CERTIFICATES / "localhost.pem", CERTIFICATES / "localhost.key"
    )
    return context


async def start(mode: str, tls: bool) -> asyncio.Server:
    context = tls_context() if tls else None
    if mode == "streams":
        return await asyncio.start_server(
            echo_stream, "127.0.0.1", 0, backlog=1024, ssl=context
        )
    loop = asyncio.get_running_loop()
    return await loop.create_server(
        PROTOCOLS[mode], "127.0.0.1", 0, backlog=1024, ssl=context
    )


def main() -> None:
    """Serve as the command line says."""
    parser = serving.parser(__doc__)
    parser.add_argument(
        "--mode", choices=(*PROTOCOLS, "streams"), default="protocol"
    )
    parser.add_argument("--tls", action="store_true")
    args = parser.parse_args()

    async def forever() -> None:
        server = await start(args.mode, args.tls)
        serving.announce(server.sockets[0].getsockname()[1])
        await asyncio.get_running_loop().create_future()

    serving.serve(args, forever)


if __name__ == "__main__":
    main()
