"""The websockets library, server and client on the loop under test."""

from __future__ import annotations

import contextlib
import os

import pytest

pytest.importorskip("websockets", reason="websockets is not installed")

from websockets.asyncio.client import connect
from websockets.asyncio.server import serve


async def echo(ws):
    async for message in ws:
        await ws.send(message)


@contextlib.asynccontextmanager
async def serving(**kwargs):
    async with serve(echo, "127.0.0.1", 0, **kwargs) as server:
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
