"""Programs: client and server in one process, and clients of databases."""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import (
    AbstractAsyncContextManager,
    AsyncExitStack,
    asynccontextmanager,
)
from typing import Any

from harness import network
from harness.case import Case, Figure, LoopFactory, Run, figure, simple_case
from harness.daemons import port_of
from harness.loops import SERVER_LOOPS

ORDER = 115
CLIENTS = 32
FEWER = 16
ROUNDS = 100
CHATTERS = 500
URLS = 200
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
    """Return operations a second of the app's work, done over and over.

    A sample lasts a tenth of a window at least: the process was stopped
    before it, and its first millisecond is no application's usual one.
    """
    clock, samples = run.clock, []
    least_ns = 0 if run.counter else run.seconds * 1e8
    async with open_app(run) as work:
        await work()
        for _ in run.repeat():
            start, done = clock(), 0
            while not done or clock() - start < least_ns:
                await work()
                done += operations
            samples.append(done / (clock() - start) * 1e9)
    return figure(samples)


def app_case(
    name: str, title: str, operations: int, *packages: str, **rest: Any
) -> Callable[[Callable[[Run], AsyncIterator[Work]]], Case]:
    """Make the case of an async generator that yields the app's work."""
    for database in rest.get("daemons", ()):
        rest["cpu"] = ("client", "self"), ("database", database)

    def case(app: Callable[[Run], AsyncIterator[Work]]) -> Case:
        open_app = asynccontextmanager(app)

        def measure(new_loop: LoopFactory, run: Run) -> Figure:
            os.sched_setaffinity(0, {network.cpus()[0]})
            with asyncio.Runner(loop_factory=new_loop) as runner:
                return runner.run(sampled(run, open_app, operations))

        rest.update(loops=SERVER_LOOPS, seconds=1.0, packages=packages)
        return simple_case(name, title, "1/s", "apps", **rest)(measure)

    return case


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
    "aiohttp",
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
    @app_case(name, title, clients * ROUNDS, "redis", daemons=("redis",))
    async def get(run: Run) -> AsyncIterator[Work]:
        from redis.asyncio import Redis

        address = {"host": "127.0.0.1", "port": port_of("redis")}
        each = [Redis(**address) for _ in range(clients)]
        await each[0].set("key", KILOBYTE[:100])
        works = [lambda one=one: one.get("key") for one in each]
        yield lambda: in_parallel(works)
        for one in each:
            await one.aclose()

    return get


@app_case(
    "client_connect",
    "a client of Redis: connect, PING, close",
    ROUNDS,
    daemons=("redis",),
)
async def client_connect(run: Run) -> AsyncIterator[Work]:
    async def ping() -> None:
        port = port_of("redis")
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        writer.write(b"PING\r\n")
        await reader.readline()
        writer.close()
        await writer.wait_closed()

    yield lambda: in_parallel([ping])


@app_case(
    "asyncpg_32",
    "asyncpg, SELECT 1, 32 connections",
    CLIENTS * ROUNDS,
    "asyncpg",
    daemons=("postgres",),
)
async def asyncpg_select(run: Run) -> AsyncIterator[Work]:
    import asyncpg

    address = f"postgresql://race@127.0.0.1:{port_of('postgres')}/postgres"
    each = [await asyncpg.connect(address, ssl=False) for _ in range(CLIENTS)]
    works = [lambda one=one: one.fetchval("SELECT 1") for one in each]
    yield lambda: in_parallel(works)
    for one in each:
        await one.close()


@app_case(
    "chat",
    "WebSocket chat, a line to each of 500 clients",
    CHATTERS,
    "websockets",
)
async def chat(run: Run) -> AsyncIterator[Work]:
    from websockets.asyncio.client import connect
    from websockets.asyncio.server import ServerConnection, broadcast, serve

    there: set[ServerConnection] = set()

    async def talk(connection: ServerConnection) -> None:
        there.add(connection)
        async for message in connection:
            broadcast(there, message)

    async with AsyncExitStack() as stack:
        enter = stack.enter_async_context
        server = await enter(
            serve(talk, "127.0.0.1", 0, backlog=CHATTERS, compression=None)
        )
        url = f"ws://127.0.0.1:{server.sockets[0].getsockname()[1]}"
        clients = [
            await enter(connect(url, proxy=None, compression=None))
            for _ in range(CHATTERS)
        ]

        async def line() -> None:
            await clients[0].send(KILOBYTE[:100])
            await asyncio.gather(*[client.recv() for client in clients])

        yield line


@app_case(
    "downloads", "aiohttp, 200 parallel downloads of 10 KB", URLS, "aiohttp"
)
async def downloads(run: Run) -> AsyncIterator[Work]:
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


CASES = (
    aiohttp_json,
    redis_get("redis_1", "redis-py, one GET at a time", 1),
    redis_get("redis_32", "redis-py, GET, 32 clients", CLIENTS),
    client_connect,
    asyncpg_select,
    chat,
    downloads,
)
