"""The websockets library, server and client on the loop under test."""

from __future__ import annotations

import asyncio
import contextlib
import os

import pytest

pytest.importorskip("websockets", reason="websockets is not installed")

from websockets.asyncio.client import connect
from websockets.asyncio.server import broadcast, serve
from websockets.exceptions import ConnectionClosedOK


async def echo(ws):
    async for message in ws:
        await ws.send(message)


@contextlib.asynccontextmanager
async def serving(handler=echo, **kwargs):
    async with serve(handler, "127.0.0.1", 0, **kwargs) as server:
        port = server.sockets[0].getsockname()[1]
        scheme = "wss" if kwargs.get("ssl") else "ws"
        yield f"{scheme}://localhost:{port}"


@pytest.mark.parametrize("tls", [False, True], ids=["plain", "tls"])
@pytest.mark.parametrize("compression", ["deflate", None])
async def test_messages_of_every_size(
    compression, tls, server_tls, client_tls
):
    """Around the frame header's three lengths, and 2 MiB."""
    sizes = (0, 1, 125, 126, 65535, 65536, 2 << 20)

    options = {"max_size": None, "compression": compression}
    near = {"ssl": client_tls} if tls else {}
    async with (
        serving(ssl=server_tls if tls else None, **options) as url,
        connect(url, proxy=None, **near, **options) as ws,
    ):
        for size in sizes:
            data = os.urandom(size)
            await ws.send(data)
            assert await ws.recv() == data
        await ws.send("grüße")
        assert await ws.recv() == "grüße"


async def test_broadcast():
    """50 clients, each told the same by one call."""
    here = set()
    all_here = asyncio.Event()

    async def handler(ws):
        here.add(ws)
        if len(here) == 50:
            all_here.set()
        await ws.wait_closed()

    async with (
        serving(handler) as url,
        contextlib.AsyncExitStack() as stack,
    ):
        clients = [
            await stack.enter_async_context(connect(url, proxy=None))
            for _ in range(50)
        ]
        await all_here.wait()
        broadcast(here, "news")
        got = await asyncio.gather(*(ws.recv() for ws in clients))
        assert got == ["news"] * 50


async def test_backpressure():
    """A reader that waits makes the writer wait; nothing is lost."""
    go = asyncio.Event()

    async def handler(ws):
        await go.wait()
        async for message in ws:
            await ws.send(str(len(message)))

    async with (
        serving(handler, compression=None) as url,
        connect(url, compression=None, proxy=None) as ws,
    ):

        async def send():
            for _ in range(64):
                await ws.send(b"x" * 500_000)

        sender = asyncio.create_task(send())
        done, _ = await asyncio.wait({sender}, timeout=0.1)
        assert not done, "32 MB went nowhere without a pause"
        go.set()
        for _ in range(64):
            assert await ws.recv() == "500000"
        await sender


async def test_server_shutdown_closes_clients():
    async with contextlib.AsyncExitStack() as stack:
        async with serving() as url:
            ws = await stack.enter_async_context(connect(url, proxy=None))
            await ws.send("hello")
            assert await ws.recv() == "hello"
        with pytest.raises(ConnectionClosedOK) as info:
            await ws.recv()
        assert info.value.rcvd.code == 1001
