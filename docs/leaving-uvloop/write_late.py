"""A write after the end is dropped, and drain() says so."""

import asyncio
import importlib
import sys


async def main():
    server = await asyncio.start_server(
        lambda reader, writer: writer.close(), "127.0.0.1", 0
    )
    address = server.sockets[0].getsockname()
    _, writer = await asyncio.open_connection(*address)
    writer.close()
    await writer.wait_closed()
    writer.write(b"late")
    try:
        await writer.drain()
    except ConnectionResetError:
        print("right")
    server.close()


importlib.import_module(sys.argv[1]).run(main())
