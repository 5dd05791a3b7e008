"""More programs: a chat, downloads, QUIC, a pipeline, a child's output."""

from __future__ import annotations

import asyncio
import resource
import socket
import ssl
from asyncio.subprocess import PIPE
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from typing import Any

from harness.case import Figure, LoopFactory, Run, simple_case
from harness.tls import CERTIFICATES

from cases.apps import (
    FEWER,
    KILOBYTE,
    ROUNDS,
    Work,
    app_case,
    in_parallel,
    pump,
)

ORDER = 116
CHATTERS = 500
URLS = 200
ITEMS = 5_000
STAGES = 4
WAITING = 100
#: In a measurement of full length: 100 MB.
LINES = 1_000_000


@app_case(
    "chat",
    "WebSocket chat, a line to each of 500 clients",
    CHATTERS,
    packages=("websockets",),
)
async def chat(run: Run) -> AsyncIterator[Work]:
    """Yield one client's line, and its way to all of them."""
    from websockets.asyncio.client import connect
    from websockets.asyncio.server import ServerConnection, broadcast, serve

    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    options: dict[str, Any] = {"compression": None}
    there: set[ServerConnection] = set()

    async def talk(connection: ServerConnection) -> None:
        there.add(connection)
        async for message in connection:
            broadcast(there, message)

    async with AsyncExitStack() as stack:
        server = await stack.enter_async_context(
            serve(talk, "127.0.0.1", 0, backlog=CHATTERS, **options)
        )
        url = f"ws://127.0.0.1:{server.sockets[0].getsockname()[1]}"
        clients = [
            await stack.enter_async_context(
                connect(url, proxy=None, **options)
            )
            for _ in range(CHATTERS)
        ]

        async def line() -> None:
            await clients[0].send(KILOBYTE[:100])
            await asyncio.gather(*[client.recv() for client in clients])

        yield line


@app_case(
    "downloads",
    "aiohttp, 200 downloads of 10 KB at once",
    URLS,
    packages=("aiohttp",),
)
async def downloads(run: Run) -> AsyncIterator[Work]:
    """Yield a new session that gets all URLs, a connection for each."""
    import aiohttp
    from aiohttp import web

    async def answer(request: web.Request) -> web.Response:
        return web.Response(body=10 * KILOBYTE)

    app = web.Application()
    app.router.add_get("/{name}", answer)
    runner = web.AppRunner(app, access_log=None)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0, backlog=URLS).start()
    address = f"http://127.0.0.1:{runner.addresses[0][1]}"

    async def get(session: aiohttp.ClientSession, name: int) -> None:
        async with session.get(f"{address}/{name}") as response:
            await response.read()

    async def all_at_once() -> None:
        connector = aiohttp.TCPConnector(limit=0)
        async with aiohttp.ClientSession(connector=connector) as session:
            await asyncio.gather(*[get(session, name) for name in range(URLS)])

    yield all_at_once
    await runner.cleanup()


def free_udp_port() -> int:
    with socket.socket(type=socket.SOCK_DGRAM) as sock:
        sock.bind(("127.0.0.1", 0))
        return sock.getsockname()[1]


@app_case(
    "aioquic",
    "aioquic, echo of 1 KB, 16 connections",
    FEWER * ROUNDS,
    packages=("aioquic",),
)
async def quic_echo(run: Run) -> AsyncIterator[Work]:
    """Yield a message and its echo on a stream of each connection."""
    from aioquic.asyncio import connect, serve
    from aioquic.quic.configuration import QuicConfiguration

    server = QuicConfiguration(is_client=False)
    server.load_cert_chain(
        CERTIFICATES / "localhost.pem", CERTIFICATES / "localhost.key"
    )
    client = QuicConfiguration(verify_mode=ssl.CERT_NONE)
    tasks: set[asyncio.Task] = set()

    def echo(
        reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> None:
        task = asyncio.ensure_future(pump(reader, writer))
        tasks.add(task)
        task.add_done_callback(tasks.discard)

    async def once(port: int, stack: AsyncExitStack) -> Work:
        opened = await stack.enter_async_context(
            connect("127.0.0.1", port, configuration=client)
        )
        reader, writer = await opened.create_stream()

        async def talk() -> None:
            writer.write(KILOBYTE)
            await reader.readexactly(len(KILOBYTE))

        return talk

    port = free_udp_port()
    listening = await serve(
        "127.0.0.1", port, configuration=server, stream_handler=echo
    )
    async with AsyncExitStack() as stack:
        works = [await once(port, stack) for _ in range(FEWER)]
        yield lambda: in_parallel(works)
    listening.close()
    for task in tasks:
        task.cancel()


@app_case("pipeline", "asyncio.Queue pipeline of 4 stages, items", ITEMS)
async def pipeline(run: Run) -> AsyncIterator[Work]:
    """Yield the way of all items through queues of bounded length."""

    async def stage(source: asyncio.Queue, sink: asyncio.Queue) -> None:
        while (item := await source.get()) is not None:
            await sink.put(item + 1)
        await sink.put(None)

    async def flow() -> None:
        queues = [asyncio.Queue(WAITING) for _ in range(STAGES + 1)]
        async with asyncio.TaskGroup() as group:
            for number in range(STAGES):
                group.create_task(stage(*queues[number : number + 2]))

            async def fill() -> None:
                for item in range(ITEMS):
                    await queues[0].put(item)
                await queues[0].put(None)

            group.create_task(fill())
            while await queues[-1].get() is not None:
                pass

    yield flow


@simple_case(
    "lines",
    "subprocess, its output read by lines of 100 B",
    group="apps",
    seconds=1.0,
)
def lines(new_loop: LoopFactory, run: Run) -> Figure:
    """Time a line of what a program writes as fast as it can."""
    count = int(LINES * run.seconds)
    shell = f"yes {'x' * 99} | head -n {count}"

    async def read() -> int:
        process = await asyncio.create_subprocess_shell(shell, stdout=PIPE)
        assert process.stdout is not None
        found = 0
        async for _ in process.stdout:
            found += 1
        await process.wait()
        return found

    def whole() -> None:
        found = runner.run(read())
        if found != count:
            raise RuntimeError(f"{found} of {count} lines came")

    with asyncio.Runner(loop_factory=new_loop) as runner:
        return run.sample(whole, count, least=2)


CASES = (chat, downloads, quic_echo, pipeline, lines)
