"""A protocol factory that fails once does not stop its server."""

import asyncio
import importlib
import sys


class Greeting(asyncio.Protocol):
    def connection_made(self, transport):
        transport.write(b"hello")
        transport.close()


made = []


def factory():
    made.append(Greeting())
    if len(made) == 1:
        raise ValueError("for the first connection")
    return made[-1]


async def main():
    loop = asyncio.get_running_loop()
    server = await loop.create_server(factory, "127.0.0.1", 0)
    address = server.sockets[0].getsockname()
    _, first = await asyncio.open_connection(*address)
    reader, second = await asyncio.open_connection(*address)
    assert await asyncio.wait_for(reader.read(), 10) == b"hello"
    first.close()
    second.close()
    server.close()
    print("right")


importlib.import_module(sys.argv[1]).run(main())
