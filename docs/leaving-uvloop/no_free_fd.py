"""Without a free fd, waiting connections wait."""

import asyncio
import importlib
import os
import resource
import socket
import sys


async def serve(reader, writer):
    writer.write(await reader.readline())
    writer.close()


def ask(client):
    client.sendall(b"a line\n")
    return client.recv(100)


async def main():
    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    client = socket.socket()
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (64, most))
    taken = []
    try:
        while True:
            taken.append(os.dup(1))
    except OSError:
        client.connect(server.sockets[0].getsockname())
    await asyncio.sleep(0.1)
    for fd in taken:
        os.close(fd)
    assert await asyncio.to_thread(ask, client) == b"a line\n"
    client.close()
    server.close()
    print("right")


importlib.import_module(sys.argv[1]).run(main())
