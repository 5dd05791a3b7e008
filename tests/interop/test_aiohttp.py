"""aiohttp, server and client, both on the loop under test."""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import io
import signal
import ssl
import urllib.request

import pytest
from interop_process import CERTS, child_env

pytest.importorskip("aiohttp", reason="aiohttp is not installed")

import aiohttp
from aiohttp import web
from patience import PATIENCE

BODY = bytes(range(256)) * 0x2000


async def hello(request: web.Request) -> web.Response:
    peer = request.transport.get_extra_info("peername")
    return web.json_response({"peer": peer, "secure": request.secure})


async def digest(request: web.Request) -> web.Response:
    seen = hashlib.sha256()
    async for chunk in request.content.iter_any():
        seen.update(chunk)
    return web.Response(text=seen.hexdigest())


async def chunked(request: web.Request) -> web.StreamResponse:
    response = web.StreamResponse()
    response.enable_chunked_encoding()
    await response.prepare(request)
    for i in range(0, len(BODY), 0x8000):
        await response.write(BODY[i : i + 0x8000])
    await response.write_eof()
    return response


async def whole(request: web.Request) -> web.Response:
    return web.Response(body=BODY)


async def websocket(request: web.Request) -> web.WebSocketResponse:
    ws = web.WebSocketResponse(max_msg_size=0)
    await ws.prepare(request)
    async for msg in ws:
        if msg.type is aiohttp.WSMsgType.TEXT:
            await ws.send_str(msg.data.upper())
        elif msg.type is aiohttp.WSMsgType.BINARY:
            await ws.send_bytes(msg.data[::-1])
    return ws


def make_app() -> web.Application:
    app = web.Application(client_max_size=0)
    app.add_routes(
        [
            web.get("/", hello),
            web.post("/digest", digest),
            web.get("/chunked", chunked),
            web.get("/whole", whole),
            web.get("/ws", websocket),
        ]
    )
    return app


def make_slow_app():
    """The application and two events of its handler that never ends."""
    started, cancelled = asyncio.Event(), asyncio.Event()

    async def slow(request: web.Request) -> web.Response:
        started.set()
        try:
            await asyncio.sleep(3600)
        finally:
            cancelled.set()
        return web.Response()

    app = make_app()
    app.add_routes([web.get("/slow", slow)])
    return app, started, cancelled


@contextlib.asynccontextmanager
async def serving(tls=None, app=None, **kwargs):
    """The application on a port of its own; gives the base URL."""
    runner = web.AppRunner(app or make_app(), **kwargs)
    await runner.setup()
    try:
        site = web.TCPSite(runner, "127.0.0.1", 0, ssl_context=tls)
        await site.start()
        port = runner.addresses[0][1]
        yield f"http{'s' if tls else ''}://localhost:{port}"
    finally:
        await runner.cleanup()


@contextlib.asynccontextmanager
async def client(tls=None, **kwargs):
    connector = aiohttp.TCPConnector(ssl=tls or True, **kwargs)
    async with aiohttp.ClientSession(connector=connector) as session:
        yield session


@pytest.fixture(params=["plain", "tls"])
def tls(request, server_tls, client_tls):
    """(server's context, client's), or None twice."""
    return (server_tls, client_tls) if request.param == "tls" else (None, None)


async def test_keep_alive(tls):
    """Requests one after the other share a connection; at once, not."""
    async with serving(tls[0]) as url, client(tls[1]) as session:
        peers = set()
        for _ in range(5):
            async with session.get(url) as response:
                reply = await response.json()
                peers.add(tuple(reply["peer"]))
                assert reply["secure"] is (tls[0] is not None)
        assert len(peers) == 1

        async def one():
            async with session.get(url) as response:
                return tuple((await response.json())["peer"])

        peers = await asyncio.gather(*(one() for _ in range(20)))
        assert 1 < len(set(peers)) <= 20


async def test_chunked_both_ways(tls):
    """2 MiB in chunks up, then down; then with a length."""

    async def parts():
        for i in range(0, len(BODY), 0x10000):
            yield BODY[i : i + 0x10000]

    async with serving(tls[0]) as url, client(tls[1]) as session:
        want = hashlib.sha256(BODY).hexdigest()
        for data in (parts(), io.BytesIO(BODY)):
            async with session.post(url + "/digest", data=data) as got:
                assert await got.text() == want
        for path in ("/chunked", "/whole"):
            async with session.get(url + path) as got:
                assert await got.read() == BODY


async def test_websocket(tls):
    async with serving(tls[0]) as url, client(tls[1]) as session:
        async with session.ws_connect(url + "/ws", max_msg_size=0) as ws:
            for text in ("hello", "x" * 200_000):
                await ws.send_str(text)
                assert await ws.receive_str() == text.upper()
            await ws.send_bytes(BODY)
            assert await ws.receive_bytes() == BODY[::-1]
            await ws.ping()
            for i in range(200):
                await ws.send_str(f"n{i}")
            for i in range(200):
                assert await ws.receive_str() == f"N{i}"
        assert ws.close_code == 1000


async def test_a_certificate_of_another_name_is_refused(client_tls):
    other = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    other.load_cert_chain(CERTS / "other.pem", CERTS / "other.key")
    async with serving(other) as url, client(client_tls) as session:
        with pytest.raises(aiohttp.ClientConnectorCertificateError):
            await session.get(url)
        async with session.get(url, server_hostname="other.test") as got:
            assert (await got.json())["secure"]


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
        client(client_tls) as session,
    ):
        for size in (1, 1000, 3_000_000):
            body = b"x" * size
            async with session.post(
                url + "/digest", data=io.BytesIO(body), proxy=proxy
            ) as got:
                assert await got.text() == hashlib.sha256(body).hexdigest()
        assert set(served) == {url.removeprefix("https://")}


def test_file_by_sendfile(run, tls, tmp_path):
    """A static file: sendfile over TCP, its fallback over TLS; a range."""
    (tmp_path / "file").write_bytes(BODY)
    app = make_app()
    app.router.add_static("/static", tmp_path)

    async def main():
        async with serving(tls[0], app) as url, client(tls[1]) as session:
            async with session.get(url + "/static/file") as got:
                assert await got.read() == BODY
            part = {"Range": "bytes=1000-200999"}
            async with session.get(url + "/static/file", headers=part) as got:
                assert got.status == 206
                assert await got.read() == BODY[1000:201000]

    run(main())


async def test_client_that_leaves_cancels_the_handler():
    app, started, cancelled = make_slow_app()

    async with (
        serving(app=app, handler_cancellation=True) as url,
        client() as session,
    ):
        request = asyncio.create_task(session.get(url + "/slow"))
        await started.wait()
        request.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await request
        await cancelled.wait()


def test_run_app(start, loop_kind):
    """aiohttp's own way to be a program, on a loop that it is given."""
    child = start("aiohttp_app.py", env=child_env(LOOP=loop_kind))
    port = int(child.wait_for(r"Running on http://127\.0\.0\.1:(\d+)")[1])
    url = f"http://127.0.0.1:{port}/"
    with urllib.request.urlopen(url, timeout=PATIENCE) as response:
        assert response.read().decode() == loop_kind
    assert child.stop(signal.SIGINT) == 0
    assert "Traceback" not in child.log
