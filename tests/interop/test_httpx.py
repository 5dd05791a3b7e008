"""httpx's client against uvicorn, both on the loop under test."""

from __future__ import annotations

import asyncio
import contextlib

import pytest
from interop_process import APPS

pytest.importorskip("httpx", reason="httpx is not installed")
pytest.importorskip("uvicorn", reason="uvicorn is not installed")
pytest.importorskip("fastapi", reason="FastAPI is not installed")

import httpx
import uvicorn


class Server(uvicorn.Server):
    """uvicorn's server, which says when it listens."""

    def __init__(self, config):
        super().__init__(config)
        self.ready = asyncio.Event()

    async def startup(self, sockets=None):
        await super().startup(sockets)
        self.ready.set()


@contextlib.asynccontextmanager
async def serving(**options):
    """The FastAPI application in this process; gives the base URL."""
    config = uvicorn.Config(
        "fastapi_app:app",
        host="127.0.0.1",
        port=0,
        log_level="warning",
        **options,
    )
    server = Server(config)
    task = asyncio.create_task(server.serve())
    try:
        await server.ready.wait()
        port = server.servers[0].sockets[0].getsockname()[1]
        scheme = "https" if config.is_ssl else "http"
        yield f"{scheme}://127.0.0.1:{port}"
    finally:
        server.should_exit = True
        await task


@pytest.fixture(autouse=True)
def apps_on_path(monkeypatch):
    monkeypatch.syspath_prepend(str(APPS))


async def test_requests_share_connections(loop_kind):
    async with (
        serving() as url,
        httpx.AsyncClient(base_url=url, trust_env=False) as client,
    ):
        reply = (await client.get("/")).json()
        assert reply["loop"] == loop_kind
        assert reply["lifespan"] is True
        for _ in range(3):
            got = await client.get("/thread", params={"n": 11})
            assert got.json() == {"sum": 55}
        got = await asyncio.gather(*(client.get("/plain") for _ in range(30)))
        assert {r.text for r in got} == {"Hello, world!"}
        await client.post("/task", params={"word": "x"})
        assert (await client.get("/done")).json() == "x"


@pytest.mark.not_at_worst("one-byte", reason="over 200,000 writes")
async def test_streams():
    """A body from a generator, an answer read as it comes."""

    async def parts():
        for i in range(64):
            yield bytes([i]) * 0x4000

    async with (
        serving() as url,
        httpx.AsyncClient(base_url=url, trust_env=False) as client,
    ):
        got = await client.post("/echo", content=parts())
        assert got.content == b"".join([p async for p in parts()])
        async with client.stream("GET", "/stream?n=500") as response:
            lines = [line async for line in response.aiter_lines()]
        assert lines == [f"line {i}" for i in range(500)]
