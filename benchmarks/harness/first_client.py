"""The first client of a process: it connects, is served and leaves.

README.md says why.  The gaps are filled with blocks of 256 KiB, as asyncio
reads, so those of TLS, datagrams and pipes are freed whole, too.
"""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Callable

MESSAGE = b"x" * 64
PATIENCE_S = 10.0
BLOCK_SIZE = 256 * 1024
#: More than there are gaps in any server of the race.
BLOCKS = 16


class Echo(asyncio.Protocol):
    transport: asyncio.Transport

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = transport

    def data_received(self, data: bytes) -> None:
        self.transport.write(data)


async def serve_one() -> bytes:
    """Serve a client until it has left; return what it was answered."""
    loop = asyncio.get_running_loop()
    left: asyncio.Future[None] = loop.create_future()

    class UntilItLeaves(Echo):
        def connection_lost(self, exc: Exception | None) -> None:
            left.set_result(None)

    server = await loop.create_server(UntilItLeaves, "127.0.0.1", 0)
    address = server.sockets[0].getsockname()
    with socket.create_connection(address, PATIENCE_S) as client:
        client.sendall(MESSAGE)
        client.shutdown(socket.SHUT_WR)
        await left
        answer = client.recv(len(MESSAGE))
    server.close()
    return answer


def have_one(new_loop: Callable[[], asyncio.AbstractEventLoop]) -> None:
    """Have a client come and leave, on a loop of its own.

    Every server calls it before it listens, and the worker before a case.
    """
    gaps = [bytes(BLOCK_SIZE) for _ in range(BLOCKS)]
    loop = new_loop()
    answer = loop.run_until_complete(serve_one())
    loop.close()
    del gaps
    if answer != MESSAGE:
        raise RuntimeError("the first client was not answered")
