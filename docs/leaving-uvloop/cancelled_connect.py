"""A cancelled connect closes no other connection."""

import asyncio
import importlib
import socket
import sys


async def main():
    loop = asyncio.get_running_loop()
    with socket.create_server(("127.0.0.1", 0)) as listening:
        sock = socket.create_connection(listening.getsockname())
        connect = loop.create_connection(asyncio.Protocol, sock=sock)
        task = asyncio.create_task(connect)
        await asyncio.sleep(0)
        task.cancel()
        await asyncio.wait([task])
        await asyncio.sleep(0.1)
        one, other = socket.socketpair()
        sock.close()
        one.send(b"for the other")
        assert other.recv(100) == b"for the other"
        one.close()
        other.close()
    print("right")


importlib.import_module(sys.argv[1]).run(main())
