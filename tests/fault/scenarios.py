"""Small applications of which each call fails once: see sweep.py.

Each is a coroutine function that opens what it needs, moves some bytes, says
by an assertion that they are right, and closes everything whatever happens.
An end before all bytes have arrived is Early: a protocol or a handler must
have got the reason, and note() records what they get.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import socket
import tempfile
import threading
import tty
from collections.abc import Callable
from typing import Any

from scenario_tools import (
    CLIENT_CONTEXT,
    FAILURES,
    LOCAL,
    SERVER_CONTEXT,
    BufferedEcho,
    Client,
    Early,
    Echo,
    closing,
    connected,
    enough,
    note,
    reported,
    same,
    settle,
    sockets,
    stream_server,
)

#: More than the buffers of a connection on the loopback take.
MUCH = bytes(range(256)) * 2000


async def talk(factory: Callable[[], Any], tls: bool = False) -> None:
    """Echo over TCP, a little, then much."""
    loop = asyncio.get_running_loop()
    server = await loop.create_server(
        factory, LOCAL, 0, ssl=SERVER_CONTEXT if tls else None
    )
    async with closing(server):
        transport, client = await loop.create_connection(
            Client,
            *server.sockets[0].getsockname(),
            ssl=CLIENT_CONTEXT if tls else None,
            server_hostname="localhost" if tls else None,
        )
        try:
            transport.write(b"hello")
            transport.writelines([b"he", b"ll", b"o"])
            same(await client.take(10), b"hellohello")
            transport.pause_reading()
            transport.write(MUCH)
            await settle()
            transport.resume_reading()
            same(await client.take(len(MUCH)), MUCH)
            transport.close()
            await client.lost
        finally:
            transport.abort()


async def protocol_echo() -> None:
    await talk(Echo)


async def buffered_echo() -> None:
    await talk(BufferedEcho)


async def tls_echo() -> None:
    await talk(Echo, tls=True)


async def tls_object_echo() -> None:
    await talk(Echo, tls=True)


async def tls_python_echo() -> None:
    await talk(Echo, tls=True)


async def http() -> None:
    """Two requests on a connection that is kept."""

    async def serve(reader: Any, writer: Any) -> None:
        while line := await reader.readline():
            size = 0
            while (header := await reader.readline()) != b"\r\n":
                enough(header)
                name, _, value = header.partition(b":")
                size = int(value) if name == b"Content-Length" else size
            body = await reader.readexactly(size)
            writer.write(b"HTTP/1.1 200 OK\r\n")
            writer.write(b"Content-Length: %d\r\n\r\n" % len(line + body))
            writer.writelines([line, body])
            await writer.drain()
        writer.close()
        await writer.wait_closed()

    async with stream_server(serve) as address:
        async with connected(address) as (reader, writer):
            for body in (b"", MUCH[:120_000]):
                writer.write(b"POST / HTTP/1.1\r\nHost: localhost\r\n")
                writer.write(b"Content-Length: %d\r\n\r\n" % len(body) + body)
                await writer.drain()
                head = await reader.readuntil(b"\r\n\r\n")
                same(head[:12], b"HTTP/1.1 200")
                size = int(head.rpartition(b":")[2])
                answer = await reader.readexactly(size)
                same(answer, b"POST / HTTP/1.1\r\n" + body)
            writer.write_eof()
            same(await reader.read(), b"")


async def start_tls() -> None:
    """Both ends go over to TLS in the middle of a connection."""

    async def serve(reader: Any, writer: Any) -> None:
        same(await reader.readline(), b"STARTTLS\n")
        writer.write(b"go on\n")
        await writer.drain()
        await writer.start_tls(SERVER_CONTEXT)
        writer.write(await reader.readexactly(5))
        writer.close()
        await writer.wait_closed()

    async with stream_server(serve) as address:
        async with connected(address) as (reader, writer):
            writer.write(b"STARTTLS\n")
            same(await reader.readline(), b"go on\n")
            await writer.start_tls(CLIENT_CONTEXT, server_hostname="localhost")
            writer.write(b"hello")
            same(await reader.read(), b"hello")
            writer.close()
            await writer.wait_closed()


async def slow_reader() -> None:
    """Streams in both directions, each side slower than what comes."""

    async def give(writer: Any) -> None:
        for start in range(0, len(MUCH), 100_000):
            writer.write(MUCH[start : start + 100_000])
            await writer.drain()
        writer.write_eof()

    async def take(reader: Any) -> None:
        got = bytearray()
        while data := await reader.read(20_000):
            got += data
            await asyncio.sleep(0)
        same(got, MUCH)

    async def serve(reader: Any, writer: Any) -> None:
        await asyncio.gather(give(writer), take(reader))
        writer.close()
        await writer.wait_closed()

    async with stream_server(serve) as address:
        async with connected(address) as (reader, writer):
            await asyncio.gather(give(writer), take(reader))


async def sock_echo() -> None:
    """sock_* of one loop, waiting in turn."""
    loop = asyncio.get_running_loop()
    with sockets() as (left, right):
        into = bytearray(5)

        async def echo() -> None:
            with left:
                try:
                    while data := await loop.sock_recv(left, 10_000):
                        await loop.sock_sendall(left, data)
                finally:
                    # Without memory the call may not end its count, which
                    # keeps the socket open.
                    left.shutdown(socket.SHUT_RDWR)

        task = loop.create_task(echo())
        try:
            await settle()
            await loop.sock_sendall(right, b"hello")
            count = 0
            while count < 5:
                view = memoryview(into)[count:]
                got = await loop.sock_recv_into(right, view)
                enough(got)
                count += got
            assert into == b"hello"

            async def send() -> None:
                try:
                    await loop.sock_sendall(right, MUCH)
                except FAILURES as exc:
                    note(exc)
                    right.shutdown(socket.SHUT_RDWR)

            sending = loop.create_task(send())
            size = 0
            try:
                while size < len(MUCH):
                    data = await loop.sock_recv(right, 1 << 16)
                    enough(data)
                    same(data, MUCH[size : size + len(data)])
                    size += len(data)
            finally:
                sending.cancel()
                await asyncio.wait([sending])
            right.shutdown(socket.SHUT_WR)
            await task
        finally:
            task.cancel()
            await asyncio.wait([task])
            if not task.cancelled():
                note(task.exception())


async def sock_connect() -> None:
    loop = asyncio.get_running_loop()
    listener = socket.create_server((LOCAL, 0))
    near = socket.socket()
    with listener, near:
        listener.setblocking(False)
        near.setblocking(False)
        accepting = loop.create_task(loop.sock_accept(listener))
        try:
            await settle()
            await loop.sock_connect(near, listener.getsockname())
            far, address = await accepting
        finally:
            accepting.cancel()
            await asyncio.wait([accepting])
        with far:
            assert address == near.getsockname()
            far.setblocking(False)
            for number in range(3):
                receiving = loop.create_task(loop.sock_recv(far, 10))
                try:
                    await settle()
                    await loop.sock_sendall(near, b"%d" % number)
                    same(await receiving, b"%d" % number)
                finally:
                    receiving.cancel()
                    await asyncio.wait([receiving])


class Datagrams(asyncio.DatagramProtocol):
    """Sends back what it gets, or collects it."""

    def __init__(self, echoes: bool) -> None:
        loop = asyncio.get_running_loop()
        self.echoes = echoes
        self.transport: Any = None
        self.got: asyncio.Queue[Any] = asyncio.Queue()
        self.lost = loop.create_future()

    def connection_made(self, transport: Any) -> None:
        self.transport = transport

    def datagram_received(self, data: bytes, addr: Any) -> None:
        if self.echoes:
            self.transport.sendto(data, addr)
        else:
            self.got.put_nowait(data)

    def error_received(self, exc: Exception) -> None:
        note(exc)

    def connection_lost(self, exc: Exception | None) -> None:
        note(exc)
        if not self.lost.done():
            self.lost.set_result(None)


async def datagrams() -> None:
    """What is lost to an error is sent again."""
    loop = asyncio.get_running_loop()
    opened = []
    try:
        for echoes in (True, False):
            _, protocol = await loop.create_datagram_endpoint(
                lambda echoes=echoes: Datagrams(echoes),
                local_addr=(LOCAL, 0),
            )
            opened.append(protocol)
        server, client = opened
        enough(server.transport and client.transport)
        name = server.transport.get_extra_info("sockname")
        # One that cannot be known is None.
        name = name or server.transport.get_extra_info("socket").getsockname()
        for number in range(5):
            while True:
                client.transport.sendto(b"%d" % number, name)
                patience = 2.0 if not reported else 0.05
                with contextlib.suppress(TimeoutError):
                    async with asyncio.timeout(patience):
                        got = await client.got.get()
                        while client.got.qsize():
                            client.got.get_nowait()
                        break
                if not reported or server.lost.done() or client.lost.done():
                    raise Early
            assert got == b"%d" % number
    finally:
        for protocol in opened:
            if protocol.transport:
                protocol.transport.abort()
                await protocol.lost


class WritePipe(asyncio.BaseProtocol):
    """Keeps why its pipe ended."""

    def connection_lost(self, exc: Exception | None) -> None:
        note(exc)


async def pipes() -> None:
    loop = asyncio.get_running_loop()
    fds = os.pipe()
    files = [os.fdopen(fds[0], "rb", 0), os.fdopen(fds[1], "wb", 0)]
    reader = asyncio.StreamReader()
    transports = []
    try:
        transport, _ = await loop.connect_read_pipe(
            lambda: asyncio.StreamReaderProtocol(reader), files[0]
        )
        transports.append(transport)
        transport, _ = await loop.connect_write_pipe(WritePipe, files[1])
        transports.append(transport)
        transport.write(b"hello")
        transport.write(MUCH)
        same(await reader.readexactly(5), b"hello")
        same(await reader.readexactly(len(MUCH)), MUCH)
        transport.close()
        same(await reader.read(), b"")
    finally:
        for transport in transports:
            transport.close()
        await settle()
        for file in files:
            file.close()


async def terminal() -> None:
    """Both directions by one descriptor, which a callback watches, too."""
    loop = asyncio.get_running_loop()
    near, far = os.openpty()
    files = [open(near, mode, 0, closefd=False) for mode in ("rb", "wb")]
    transports = []
    arrived = asyncio.Event()
    try:
        tty.setraw(far)
        reader = asyncio.StreamReader()
        transport, _ = await loop.connect_read_pipe(
            lambda: asyncio.StreamReaderProtocol(reader), files[0]
        )
        transports.append(transport)
        transport, _ = await loop.connect_write_pipe(WritePipe, files[1])
        transports.append(transport)
        loop.add_writer(near, arrived.set)
        await asyncio.wait_for(arrived.wait(), 1)
        loop.remove_writer(near)
        transport.write(b"hello")
        os.set_blocking(far, False)
        out = b""
        while len(out) < 5 and not transport.is_closing():
            await asyncio.sleep(0)
            with contextlib.suppress(BlockingIOError):
                out += os.read(far, 99)
        same(out, b"hello")
        os.write(far, b"answer")
        same(await asyncio.wait_for(reader.readexactly(6), 1), b"answer")
    finally:
        loop.remove_writer(near)
        try:
            for transport in transports:
                transport.close()
        finally:
            os.close(far)
            os.close(near)
        await settle()
        for file in files:
            file.close()


async def executor() -> None:
    loop = asyncio.get_running_loop()
    assert await loop.run_in_executor(None, pow, 2, 5) == 32
    squares = await asyncio.gather(
        *[loop.run_in_executor(None, pow, n, 2) for n in range(10)],
        asyncio.to_thread(pow, 10, 2),
    )
    assert squares == [n**2 for n in range(11)]
    future = loop.run_in_executor(None, divmod, 1, 0)
    with contextlib.suppress(ZeroDivisionError):
        await future


async def signals() -> None:
    loop = asyncio.get_running_loop()
    seen = loop.create_future()
    loop.add_signal_handler(signal.SIGUSR1, seen.set_result, 5)
    try:
        os.kill(os.getpid(), signal.SIGUSR1)
        assert await seen == 5
    finally:
        loop.remove_signal_handler(signal.SIGUSR1)


async def two_threads() -> None:
    loop = asyncio.get_running_loop()
    seen: list[int] = []
    done = loop.create_future()
    failed: list[BaseException] = []

    def finish() -> None:
        if not done.done():
            done.set_result(None)

    def work() -> None:
        try:
            for number in range(50):
                loop.call_soon_threadsafe(seen.append, number)
        except FAILURES as exc:
            failed.append(exc)
        for _ in range(2):
            with contextlib.suppress(MemoryError):
                loop.call_soon_threadsafe(finish)
                break

    thread = threading.Thread(target=work)
    thread.start()
    try:
        await done
    finally:
        thread.join()
    if failed:
        raise failed[0]
    enough(len(seen) == 50)
    assert seen == list(range(50))


async def timers() -> None:
    loop = asyncio.get_running_loop()
    seen: list[int] = []
    kept = [loop.call_later(0.002, seen.append, n) for n in range(20)]
    far = [loop.call_later(100 + n % 7, int) for n in range(150)]
    for handle in [*kept[::2], *far]:
        handle.cancel()
    for delay in (0.0002, 0.0015):
        begin = loop.time()
        await asyncio.sleep(delay)
        assert loop.time() - begin >= delay
    begin = loop.time()
    while len(seen) < 10 and loop.time() - begin < 1:
        await asyncio.sleep(0.0005)
    enough(len(seen) == 10)
    assert seen == list(range(1, 20, 2)), seen
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(0.001):
            await loop.create_future()


async def watchers() -> None:
    loop = asyncio.get_running_loop()
    with sockets() as (left, right):
        seen: asyncio.Queue[bytes] = asyncio.Queue()
        writable = loop.create_future()

        def may_write() -> None:
            loop.remove_writer(right)
            writable.set_result(None)

        try:
            loop.add_reader(left, lambda: seen.put_nowait(left.recv(9)))
            for number in range(3):
                writable = loop.create_future()
                loop.add_writer(right, may_write)
                await writable
                right.send(b"%d" % number)
                assert await seen.get() == b"%d" % number
        finally:
            loop.remove_reader(left)
            loop.remove_writer(right)


async def sendfile() -> None:
    loop = asyncio.get_running_loop()
    with tempfile.TemporaryFile() as file:
        file.write(MUCH)
        file.seek(0)
        server = await loop.create_server(Echo, LOCAL, 0)
        async with closing(server):
            transport, client = await loop.create_connection(
                Client, *server.sockets[0].getsockname()
            )
            try:
                assert await loop.sendfile(transport, file) == len(MUCH)
                same(await client.take(len(MUCH)), MUCH)
            finally:
                transport.abort()
            await client.lost


async def shutdown() -> None:
    """A server that ends while its connections are open."""
    loop = asyncio.get_running_loop()
    made: list[Any] = []

    def factory() -> Echo:
        made.append(Echo())
        return made[-1]

    server = await loop.create_server(factory, LOCAL, 0)
    clients = []
    async with closing(server):
        try:
            for _ in range(3):
                transport, client = await loop.create_connection(
                    Client, *server.sockets[0].getsockname()
                )
                clients.append((transport, client))
                transport.write(b"hello")
                same(await client.take(5), b"hello")
            server.close()
            for echo in made:
                echo.transport.close()
            await server.wait_closed()
            for _, client in clients:
                await client.lost
        finally:
            for transport, _ in clients:
                transport.abort()


async def names() -> None:
    loop = asyncio.get_running_loop()
    found = await loop.getaddrinfo(LOCAL, 80, type=socket.SOCK_STREAM)
    assert found[0][4] == (LOCAL, 80)
    found = await loop.getaddrinfo("localhost", 80, proto=6)
    assert found
    host, service = await loop.getnameinfo(
        (LOCAL, 80), socket.NI_NUMERICHOST | socket.NI_NUMERICSERV
    )
    assert (host, service) == (LOCAL, "80")


async def debug_mode() -> None:
    """What the loop does more in debug mode."""
    loop = asyncio.get_running_loop()
    loop.set_debug(True)
    loop.slow_callback_duration = 1000
    await protocol_echo()
    await timers()


SCENARIOS = (
    http,
    protocol_echo,
    buffered_echo,
    tls_echo,
    tls_object_echo,
    tls_python_echo,
    start_tls,
    slow_reader,
    sock_echo,
    sock_connect,
    datagrams,
    pipes,
    terminal,
    executor,
    signals,
    two_threads,
    timers,
    watchers,
    sendfile,
    shutdown,
    names,
    debug_mode,
)
#: Kinds of failures that a scenario is not asked to survive.
LEFT_OUT = {
    # No system says again and again of what is ready that it would block: a
    # registration by edges is looked at after a second only, each time.
    "sock_connect": "lasting",
}
#: The fast paths that a scenario turns off.
DISABLED = {"tls_object_echo": "libssl", "tls_python_echo": "native_tls"}
