"""An echo server on sockets: sock_accept, sock_recv and sock_sendall.

python benchmarks/servers/sock_echo.py --loop NAME
"""

from __future__ import annotations

import asyncio
import socket

import serving

BUFFER_SIZE = 64 * 1024


async def echo(loop: asyncio.AbstractEventLoop, sock: socket.socket) -> None:
    with sock:
        try:
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            while data := await loop.sock_recv(sock, BUFFER_SIZE):
                await loop.sock_sendall(sock, data)
        except ConnectionError:
            pass


async def forever() -> None:
    loop = asyncio.get_running_loop()
    tasks = set()
    with socket.create_server(("127.0.0.1", 0), backlog=1024) as listener:
        listener.setblocking(False)
        serving.announce(listener.getsockname()[1])
        while True:
            sock, _ = await loop.sock_accept(listener)
            sock.setblocking(False)
            task = loop.create_task(echo(loop, sock))
            tasks.add(task)
            task.add_done_callback(tasks.discard)


if __name__ == "__main__":
    serving.serve(serving.parser(__doc__).parse_args(), forever)
