"""A second thread may abort a connection, as terminate() does."""

import asyncio
import importlib
import socket
import sys
import time


class Client(asyncio.Protocol):
    def __init__(self):
        self.lost = asyncio.Event()

    def connection_lost(self, error):
        self.lost.set()


def terminate(transport, other):
    other.send(b"an answer")
    end = time.perf_counter() + 0.004
    while time.perf_counter() < end:
        pass  # the loop's thread knows of the answer, and waits for the GIL
    transport.abort()


async def main():
    loop = asyncio.get_running_loop()
    for _ in range(100):
        one, other = socket.socketpair()
        transport, client = await loop.create_connection(Client, sock=one)
        await asyncio.to_thread(terminate, transport, other)
        await asyncio.wait_for(client.lost.wait(), 10)
        other.close()
    print("right")


importlib.import_module(sys.argv[1]).run(main())
