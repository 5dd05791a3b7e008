"""A UDP echo server.

python benchmarks/servers/udp_echo.py --loop NAME
"""

from __future__ import annotations

import asyncio

import serving


class Echo(asyncio.DatagramProtocol):
    """Sends each datagram back to its sender."""

    transport: asyncio.DatagramTransport

    def connection_made(self, transport: asyncio.DatagramTransport) -> None:
        self.transport = transport

    def datagram_received(self, data: bytes, addr: tuple) -> None:
        self.transport.sendto(data, addr)


async def forever() -> None:
    loop = asyncio.get_running_loop()
    transport, _ = await loop.create_datagram_endpoint(
        Echo, local_addr=("127.0.0.1", 0)
    )
    serving.announce(transport.get_extra_info("sockname")[1])
    await loop.create_future()


if __name__ == "__main__":
    serving.serve(serving.parser(__doc__).parse_args(), forever)
