"""aiohttp, server and client, both on the loop under test."""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import io
import signal
import urllib.request

import pytest
from interop_process import child_env

pytest.importorskip("aiohttp", reason="aiohttp is not installed")

import aiohttp
from aiohttp import web
from patience import PATIENCE


async def digest(request: web.Request) -> web.Response:
    seen = hashlib.sha256()
    async for chunk in request.content.iter_any():
        seen.update(chunk)
    return web.Response(text=seen.hexdigest())


@contextlib.asynccontextmanager
async def serving(tls):
    """An application on a port of its own; gives the base URL."""
    app = web.Application(client_max_size=0)
    app.add_routes([web.post("/digest", digest)])
    runner = web.AppRunner(app)
    await runner.setup()
    try:
        await web.TCPSite(runner, "127.0.0.1", 0, ssl_context=tls).start()
        yield f"https://localhost:{runner.addresses[0][1]}"
    finally:
        await runner.cleanup()


@contextlib.asynccontextmanager
async def connect_proxy(tls):
    """A proxy whose clients use TLS; gives its URL, and whom it served."""
    served, tasks = [], []

    async def pipe(reader, writer):
        with contextlib.suppress(OSError):
            while data := await reader.read(65536):
                writer.write(data)
                await writer.drain()
        writer.close()

    async def serve(reader, writer):
        line = await reader.readuntil(b"\r\n\r\n")
        method, where, _ = line.split(b" ", 2)
        assert method == b"CONNECT"
        served.append(where.decode())
        port = int(where.rpartition(b":")[2])
        there = await asyncio.open_connection("127.0.0.1", port)
        writer.write(b"HTTP/1.1 200 OK\r\n\r\n")
        await asyncio.gather(pipe(reader, there[1]), pipe(there[0], writer))
        for one in (writer, there[1]):
            with contextlib.suppress(OSError):
                await one.wait_closed()

    server = await asyncio.start_server(
        lambda *ends: tasks.append(asyncio.ensure_future(serve(*ends))),
        *("127.0.0.1", 0),
        ssl=tls,
    )
    try:
        port = server.sockets[0].getsockname()[1]
        yield f"https://localhost:{port}", served
    finally:
        server.close()
        await asyncio.gather(*tasks)


async def test_a_proxy_over_tls_is_tls_in_tls(server_tls, client_tls):
    """aiohttp looks at _start_tls_compatible and calls start_tls."""
    async with (
        serving(server_tls) as url,
        connect_proxy(server_tls) as (proxy, served),
        aiohttp.ClientSession(
            connector=aiohttp.TCPConnector(ssl=client_tls)
        ) as session,
    ):
        for size in (1, 1000, 3_000_000):
            body = b"x" * size
            async with session.post(
                url + "/digest", data=io.BytesIO(body), proxy=proxy
            ) as got:
                assert await got.text() == hashlib.sha256(body).hexdigest()
        assert set(served) == {url.removeprefix("https://")}


def test_run_app(start, loop_kind):
    """aiohttp's own way to be a program, on a loop that it is given."""
    child = start("aiohttp_app.py", env=child_env(LOOP=loop_kind))
    port = int(child.wait_for(r"Running on http://127\.0\.0\.1:(\d+)")[1])
    url = f"http://127.0.0.1:{port}/"
    with urllib.request.urlopen(url, timeout=PATIENCE) as response:
        assert response.read().decode() == loop_kind
    assert child.stop(signal.SIGINT) == 0
    assert "Traceback" not in child.log
