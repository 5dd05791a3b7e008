"""Programs: client and server in one process, and clients of databases.

Each does its work over and over on one loop; a figure is operations a second.
The process has the server's CPU for itself, Redis and PostgreSQL run on the
other.
"""

from __future__ import annotations

import asyncio
import hashlib
import os
from asyncio.subprocess import PIPE
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import (
    AbstractAsyncContextManager,
    AsyncExitStack,
    asynccontextmanager,
)
from typing import Any

from harness import network
from harness.case import (
    Case,
    Figure,
    LoopFactory,
    Run,
    figure,
    simple_case,
)
from harness.daemons import port_of
from harness.loops import SERVER_LOOPS

ORDER = 115
CLIENTS = 32
FEWER = 16
ROUNDS = 10
CHATTERS = 500
URLS = 200
#: In a measurement of full length: 100 MB.
LINES = 1_000_000
KILOBYTE = b"x" * 1_000

Work = Callable[[], Awaitable[object]]
Open = Callable[[Run], AbstractAsyncContextManager[Work]]


async def in_parallel(works: list[Work]) -> None:
    """Do each of `works` some times, all of them at once."""

    async def rounds(work: Work) -> None:
        for _ in range(ROUNDS):
            await work()

    await asyncio.gather(*map(rounds, works))


async def sampled(run: Run, open_app: Open, operations: int) -> Figure:
    """Return operations a second of the app's work, done over and over."""
    clock, samples = run.clock, []
    async with open_app(run) as work:
        await work()
        for _ in run.repeat():
            start = clock()
            await work()
            samples.append(operations / (clock() - start) * 1e9)
    return figure(samples)


def app_case(
    name: str, title: str, operations: int, pinned: bool = True, **rest: Any
) -> Callable[[Callable[[Run], AsyncIterator[Work]]], Case]:
    """Make the case of an async generator that yields the app's work."""

    def case(app: Callable[[Run], AsyncIterator[Work]]) -> Case:
        open_app = asynccontextmanager(app)

        def measure(new_loop: LoopFactory, run: Run) -> Figure:
            if pinned:
                os.sched_setaffinity(0, {network.cpus()[0]})
            with asyncio.Runner(loop_factory=new_loop) as runner:
                return runner.run(sampled(run, open_app, operations))

        settings = {"group": "apps", "loops": SERVER_LOOPS, "seconds": 1.0}
        return simple_case(name, title, "1/s", **settings, **rest)(measure)

    return case


@asynccontextmanager
async def websockets(
    count: int, talk: Callable[[Any], Awaitable[None]]
) -> AsyncIterator[list[Any]]:
    """Serve WebSockets by `talk`; give so many clients."""
    from websockets.asyncio.client import connect
    from websockets.asyncio.server import serve

    async with AsyncExitStack() as stack:
        server = await stack.enter_async_context(
            serve(talk, "127.0.0.1", 0, backlog=CHATTERS, compression=None)
        )
        url = f"ws://127.0.0.1:{server.sockets[0].getsockname()[1]}"
        yield [
            await stack.enter_async_context(
                connect(url, proxy=None, compression=None)
            )
            for _ in range(count)
        ]


@app_case(
    "websockets",
    "websockets, echo of 100 B, 16 connections",
    FEWER * ROUNDS,
    packages=("websockets",),
)
async def websockets_echo(run: Run) -> AsyncIterator[Work]:
    async def echo(connection: Any) -> None:
        async for message in connection:
            await connection.send(message)

    def once(client: Any) -> Work:
        async def talk() -> None:
            await client.send(KILOBYTE[:100])
            await client.recv()

        return talk

    async with websockets(FEWER, echo) as clients:
        works = [once(client) for client in clients]
        yield lambda: in_parallel(works)


@asynccontextmanager
async def aiohttp_site(
    path: str, answer: Callable[[Any], Awaitable[Any]]
) -> AsyncIterator[str]:
    """Serve a path with aiohttp; give the address."""
    from aiohttp import web

    app = web.Application()
    app.router.add_get(path, answer)
    runner = web.AppRunner(app, access_log=None)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0, backlog=URLS).start()
    yield f"http://127.0.0.1:{runner.addresses[0][1]}"
    await runner.cleanup()


@app_case(
    "aiohttp_json",
    "aiohttp client and server, JSON, 16 connections",
    FEWER * ROUNDS,
    packages=("aiohttp",),
)
async def aiohttp_json(run: Run) -> AsyncIterator[Work]:
    import aiohttp
    from aiohttp import web

    async def answer(request: web.Request) -> web.Response:
        return web.json_response({"message": "Hello, world!"})

    async with (
        aiohttp_site("/", answer) as url,
        aiohttp.ClientSession() as session,
    ):

        async def get() -> None:
            async with session.get(url) as response:
                await response.json()

        yield lambda: in_parallel([get] * FEWER)


def redis_get(name: str, title: str, clients: int) -> Case:
    needs = {"packages": ("redis",), "daemons": ("redis",)}

    @app_case(name, title, clients * ROUNDS, **needs)
    async def get(run: Run) -> AsyncIterator[Work]:
        import redis.asyncio as redis

        port = port_of("redis")
        async with AsyncExitStack() as stack:
            each = [
                await stack.enter_async_context(
                    redis.Redis(host="127.0.0.1", port=port)
                )
                for _ in range(clients)
            ]
            await each[0].set("key", KILOBYTE[:100])
            works = [lambda one=one: one.get("key") for one in each]
            yield lambda: in_parallel(works)

    return get


@app_case(
    "asyncpg_32",
    "asyncpg, SELECT 1, 32 connections",
    CLIENTS * ROUNDS,
    packages=("asyncpg",),
    daemons=("postgres",),
)
async def asyncpg_select(run: Run) -> AsyncIterator[Work]:
    import asyncpg

    each = [
        await asyncpg.connect(
            host="127.0.0.1",
            port=port_of("postgres"),
            user="race",
            database="postgres",
            ssl=False,
        )
        for _ in range(CLIENTS)
    ]
    works = [lambda one=one: one.fetchval("SELECT 1") for one in each]
    yield lambda: in_parallel(works)
    for one in each:
        await one.close()


async def pump(
    reader: asyncio.StreamReader, writer: asyncio.StreamWriter
) -> None:
    """Write what is read, to the end."""
    try:
        while data := await reader.read(65_536):
            writer.write(data)
            await writer.drain()
    except ConnectionError:
        pass
    finally:
        writer.close()


@app_case(
    "proxy",
    "proxy on streams, 32 connections of 1 KB",
    CLIENTS * ROUNDS,
)
async def proxy_on_streams(run: Run) -> AsyncIterator[Work]:
    origin = await asyncio.start_server(pump, "127.0.0.1", 0)
    where = origin.sockets[0].getsockname()

    async def forward(
        reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> None:
        there, back = await asyncio.open_connection(*where)
        await asyncio.gather(pump(reader, back), pump(there, writer))

    proxy = await asyncio.start_server(forward, "127.0.0.1", 0)
    address = proxy.sockets[0].getsockname()
    each = [await asyncio.open_connection(*address) for _ in range(CLIENTS)]

    def once(
        reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> Work:
        async def talk() -> None:
            writer.write(KILOBYTE)
            await reader.readexactly(len(KILOBYTE))

        return talk

    works = [once(*one) for one in each]
    yield lambda: in_parallel(works)
    for _, writer in each:
        writer.close()
    proxy.close()
    origin.close()
    # The pumps end when they see their end of file.
    await asyncio.sleep(0.05)


@app_case(
    "to_thread",
    "to_thread of a SHA-256 of 8 KiB, 64 at once",
    64,
    pinned=False,
)
async def hash_in_threads(run: Run) -> AsyncIterator[Work]:
    data = bytes(8_192)

    def digest() -> None:
        hashlib.sha256(data).digest()

    yield lambda: asyncio.gather(
        *[asyncio.to_thread(digest) for _ in range(64)]
    )


@app_case(
    "chat",
    "WebSocket chat, a line to each of 500 clients",
    CHATTERS,
    packages=("websockets",),
)
async def chat(run: Run) -> AsyncIterator[Work]:
    """Yield one client's line, and its way to all of them."""
    from websockets.asyncio.server import ServerConnection, broadcast

    there: set[ServerConnection] = set()

    async def talk(connection: ServerConnection) -> None:
        there.add(connection)
        async for message in connection:
            broadcast(there, message)

    async with websockets(CHATTERS, talk) as clients:

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

    async with aiohttp_site("/{name}", answer) as address:

        async def get(session: aiohttp.ClientSession, name: int) -> None:
            async with session.get(f"{address}/{name}") as response:
                await response.read()

        async def all_at_once() -> None:
            connector = aiohttp.TCPConnector(limit=0)
            async with aiohttp.ClientSession(connector=connector) as session:
                names = range(URLS)
                await asyncio.gather(*[get(session, name) for name in names])

        yield all_at_once


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
        return run.sample(whole, count)


CASES = (
    websockets_echo,
    aiohttp_json,
    redis_get("redis_1", "redis-py, one GET at a time", 1),
    redis_get("redis_32", "redis-py, GET, 32 clients", CLIENTS),
    asyncpg_select,
    proxy_on_streams,
    hash_in_threads,
    chat,
    downloads,
    lines,
)
