"""The operations that count.py counts: each makes `n` of one kind.

Both ends of a connection are in this process, and the peer is a plain socket
that is used between two runs of the loop: no thread or process may make the
count differ.
"""

from __future__ import annotations

import asyncio
import gc
import socket
import ssl
import time
from collections.abc import Callable, Coroutine
from pathlib import Path
from typing import Any

import fastloop
from fastloop import _core

CERTS = Path(__file__).parents[1] / "certs"
REQUEST = b"GET / HTTP/1.1\r\nHost: x\r\n\r\n"

BUFFER = bytearray(1 << 16)

loop = fastloop.new_event_loop()
asyncio.set_event_loop(loop)


def nothing() -> None: ...


def stop_after(call: Callable[[], object]) -> None:
    loop.call_soon(call)
    loop.run_forever()


def call_soon(n: int) -> None:
    def burst() -> None:
        for _ in range(n):
            loop.call_soon(nothing)
        loop.call_soon(loop.stop)

    stop_after(burst)


def chain(n: int) -> None:
    """An iteration each."""

    def link() -> None:
        nonlocal n
        n -= 1
        loop.call_soon(link) if n else loop.stop()

    stop_after(link)


def call_later_cancel(n: int) -> None:
    for _ in range(n):
        loop.call_later(10, nothing).cancel()


def run(main: Coroutine[Any, Any, object]) -> None:
    loop.run_until_complete(main)


async def noop() -> None: ...


def sleep_0(n: int) -> None:
    async def main() -> None:
        for _ in range(n):
            await asyncio.sleep(0)

    run(main())


def create_task(n: int) -> None:
    async def main() -> None:
        for _ in range(n):
            await loop.create_task(noop())

    run(main())


def gather(n: int) -> None:
    async def main() -> None:
        await asyncio.gather(*[noop() for _ in range(n)])

    run(main())


def executor_job(n: int) -> None:
    """Each is so long that the loop waits for it."""

    async def main() -> None:
        for _ in range(n):
            await loop.run_in_executor(None, time.sleep, 0.005)

    run(main())


def new_loop(n: int) -> None:
    for _ in range(n):
        other = fastloop.new_event_loop()
        other.run_until_complete(noop())
        other.close()


def turns(peer: socket.socket, n: int, sent: bytes) -> None:
    """Send so many messages, and have the loop answer each."""
    for _ in range(n):
        peer.send(sent)
        loop.run_forever()
        peer.recv_into(BUFFER)  # an object of its own would be shrunk


class Echo(asyncio.Protocol):
    transport: Any

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = transport

    def data_received(self, data: bytes) -> None:
        self.transport.write(data)
        loop.stop()


class Datagrams(asyncio.DatagramProtocol):
    transport: Any

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = transport

    def datagram_received(self, data: bytes, addr: Any) -> None:
        self.transport.sendto(data, addr)
        loop.stop()


def connect(server: asyncio.Server) -> socket.socket:
    peer = socket.create_connection(server.sockets[0].getsockname())
    peer.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    return peer


def until_idle() -> None:
    for _ in range(5):
        run(asyncio.sleep(0))


def tcp_echo() -> Callable[[int], None]:
    server = loop.run_until_complete(loop.create_server(Echo, "127.0.0.1", 0))
    peer = connect(server)
    until_idle()
    return lambda n: turns(peer, n, bytes(64))


def streams_echo() -> Callable[[int], None]:
    async def handle(reader: Any, writer: Any) -> None:
        while data := await reader.read(1024):
            writer.write(data)
            await writer.drain()
            loop.stop()

    server = loop.run_until_complete(
        asyncio.start_server(handle, "127.0.0.1", 0)
    )
    peer = connect(server)
    until_idle()
    return lambda n: turns(peer, n, bytes(64))


def sock_echo() -> Callable[[int], None]:
    near, far = socket.socketpair()
    near.setblocking(False)

    async def handle() -> None:
        while True:
            await loop.sock_sendall(near, await loop.sock_recv(near, 1024))
            loop.stop()

    handlers.append(loop.create_task(handle()))
    until_idle()
    return lambda n: turns(far, n, bytes(64))


def tls_echo() -> Callable[[int], None]:
    """The peer's TLS is part of the count."""
    mine = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    mine.load_cert_chain(CERTS / "localhost.pem", CERTS / "localhost.key")
    server = loop.run_until_complete(
        loop.create_server(Echo, "127.0.0.1", 0, ssl=mine)
    )
    theirs = ssl.create_default_context()
    theirs.check_hostname, theirs.verify_mode = False, ssl.CERT_NONE
    incoming, outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
    tls = theirs.wrap_bio(incoming, outgoing)
    peer = connect(server)
    peer.setblocking(False)
    while True:
        try:
            tls.do_handshake()
            break
        except ssl.SSLWantReadError:
            exchange(peer, incoming, outgoing)
    exchange(peer, incoming, outgoing)

    def echo(n: int) -> None:
        for _ in range(n):
            tls.write(bytes(64))
            peer.send(outgoing.read())
            loop.run_forever()
            incoming.write(peer.recv(1024))
            tls.read(1024)

    return echo


def exchange(
    peer: socket.socket, incoming: ssl.MemoryBIO, outgoing: ssl.MemoryBIO
) -> None:
    if data := outgoing.read():
        peer.send(data)
    for _ in range(20):
        run(asyncio.sleep(0))
    try:
        incoming.write(peer.recv(1 << 16))
    except BlockingIOError:
        return


def datagram() -> Callable[[int], None]:
    transport, _ = loop.run_until_complete(
        loop.create_datagram_endpoint(Datagrams, local_addr=("127.0.0.1", 0))
    )
    peer = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    peer.connect(transport.get_extra_info("sockname"))
    until_idle()
    return lambda n: turns(peer, n, bytes(64))


def connection() -> Callable[[int], None]:
    """Accept a connection, and close it after its peer has."""

    class Ending(asyncio.Protocol):
        def connection_lost(self, exc: Exception | None) -> None:
            loop.stop()

    server = loop.run_until_complete(
        loop.create_server(Ending, "127.0.0.1", 0)
    )

    def connections(n: int) -> None:
        for _ in range(n):
            connect(server).close()
            loop.run_forever()

    return connections


def client() -> Callable[[int], None]:
    """Connect to a numeric host, make one exchange, and close."""
    listener = socket.create_server(("127.0.0.1", 0))
    host, port = listener.getsockname()

    async def connections(n: int) -> None:
        for _ in range(n):
            reader, writer = await asyncio.open_connection(host, port)
            peer, _ = listener.accept()
            with peer:
                writer.write(BUFFER[:64])
                await asyncio.sleep(0)
                peer.sendall(peer.recv(64))
                await reader.readexactly(64)
                writer.close()
                await writer.wait_closed()

    return lambda n: run(connections(n))


def uvicorn_request() -> Callable[[int], None]:
    import uvicorn

    async def app(scope: Any, receive: Any, send: Any) -> None:
        headers = [(b"content-length", b"2")]
        await send(
            {"type": "http.response.start", "status": 200, "headers": headers}
        )
        await send({"type": "http.response.body", "body": b"ok"})
        loop.stop()

    listener = socket.create_server(("127.0.0.1", 0))
    config = uvicorn.Config(
        app,
        http="httptools",
        lifespan="off",
        access_log=False,
        log_config=None,
    )
    server = uvicorn.Server(config)
    config.load()
    server.lifespan = config.lifespan_class(config)
    loop.run_until_complete(server.startup(sockets=[listener]))
    peer = socket.create_connection(listener.getsockname())
    until_idle()

    def requests(n: int) -> None:
        for _ in range(n):
            peer.send(REQUEST)
            loop.run_forever()
            run(asyncio.sleep(0))
            peer.recv_into(BUFFER)

    return requests


handlers: list[Any] = []

#: Each operation, and how many of it are counted.
OPERATIONS: list[tuple[Callable[..., Any], int]] = [
    (call_soon, 1000),
    (chain, 1000),
    (call_later_cancel, 1000),
    (sleep_0, 500),
    (create_task, 300),
    (gather, 300),
    (new_loop, 20),
    (tcp_echo, 200),
    (streams_echo, 100),
    (sock_echo, 100),
    (tls_echo, 100),
    (datagram, 200),
    (connection, 50),
    (client, 50),
    (uvicorn_request, 50),
    (executor_job, 50),  # last: its thread changes how memory lies
]


def main() -> None:
    """Call the marker before and after n operations, then after 2 n."""
    mark = _core.libuv_version
    gc.disable()
    for operation, n in OPERATIONS:
        # One that takes no number returns the function to count.
        takes_number = operation.__code__.co_argcount
        count = operation if takes_number else operation()
        count(n)
        gc.collect()
        mark()
        count(n)
        mark()
        count(2 * n)
        mark()
        print(operation.__name__, n, flush=True)


if __name__ == "__main__":
    main()
