"""Real packages over TLS that they verify: errors, proxies, many at once.

What each package does over TLS besides is in its own file.
"""

from __future__ import annotations

import asyncio
import contextlib
import io
import ssl

import pytest
from interop_process import CERTS
from patience import PATIENCE


@pytest.fixture
def strict_tls() -> ssl.SSLContext:
    """A server's context that wants a client's certificate."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(CERTS / "localhost.pem", CERTS / "localhost.key")
    context.load_verify_locations(CERTS / "ca.pem")
    context.verify_mode = ssl.CERT_REQUIRED
    return context


@pytest.fixture
def known_tls() -> ssl.SSLContext:
    """A client's context with a certificate of its own."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.load_verify_locations(CERTS / "ca.pem")
    context.load_cert_chain(CERTS / "client.pem", CERTS / "client.key")
    return context


@contextlib.asynccontextmanager
async def websockets_server(tls):
    """An echo that tells the client's name; gives its port."""
    server = pytest.importorskip(
        "websockets.asyncio.server", reason="websockets is missing"
    )

    async def echo(ws):
        async for message in ws:
            await ws.send(message)
            await ws.send(name_of_client(ws.transport))

    async with server.serve(
        echo, "127.0.0.1", 0, ssl=tls, max_size=None
    ) as serving:
        yield serving.sockets[0].getsockname()[1]


def name_of_client(transport):
    cert = transport.get_extra_info("peercert")
    name = dict(part[0] for part in cert["subject"]) if cert else {}
    return name.get("commonName", "")


@contextlib.asynccontextmanager
async def aiohttp_server(tls):
    """An echo over HTTPS that tells the client's name; gives its port."""
    web = pytest.importorskip("aiohttp.web", reason="aiohttp is missing")

    async def echo(request):
        name = name_of_client(request.transport)
        return web.Response(
            body=await request.read(), headers={"X-Name": name}
        )

    app = web.Application(client_max_size=1 << 26)
    app.router.add_post("/echo", echo)
    runner = web.AppRunner(app)
    await runner.setup()
    try:
        site = web.TCPSite(runner, "127.0.0.1", 0, ssl_context=tls)
        await site.start()
        yield runner.addresses[0][1]
    finally:
        await runner.cleanup()


# -- what a client sends comes back, with the name that the server knows -----


@contextlib.asynccontextmanager
async def aiohttp_client(port, tls):
    aiohttp = pytest.importorskip("aiohttp", reason="aiohttp is missing")
    connector = aiohttp.TCPConnector(ssl=tls, limit=20)
    async with aiohttp.ClientSession(connector=connector) as session:

        async def echo(data, **options):
            url = f"https://localhost:{port}/echo"
            body = io.BytesIO(data)
            async with session.post(url, data=body, **options) as response:
                return await response.read(), response.headers["X-Name"]

        yield echo


@contextlib.asynccontextmanager
async def httpx_client(port, tls):
    httpx = pytest.importorskip("httpx", reason="httpx is missing")
    async with httpx.AsyncClient(verify=tls, trust_env=False) as client:

        async def echo(data, **options):
            url = f"https://localhost:{port}/echo"
            got = await client.post(url, content=data, **options)
            return got.content, got.headers["X-Name"]

        yield echo


@contextlib.asynccontextmanager
async def websockets_client(port, tls):
    client = pytest.importorskip(
        "websockets.asyncio.client", reason="websockets is missing"
    )

    async def echo(data, **options):
        url = f"wss://localhost:{port}"
        async with client.connect(
            url, ssl=tls, proxy=None, max_size=None, **options
        ) as ws:
            await ws.send(data)
            answer = await ws.recv(), await ws.recv()
            await (await ws.ping())
            return answer

    yield echo


#: A server, a client, the error with which it refuses the server, and how it
#: is told another name.
PACKAGES = {
    "aiohttp": (
        aiohttp_server,
        aiohttp_client,
        "ClientConnectorCertificateError",
        {"server_hostname": "other.test"},
    ),
    "httpx": (
        aiohttp_server,
        httpx_client,
        "ConnectError",
        {"extensions": {"sni_hostname": "other.test"}},
    ),
    "websockets": (
        websockets_server,
        websockets_client,
        "SSLCertVerificationError",
        {"server_hostname": "other.test"},
    ),
}
every_package = pytest.mark.parametrize("package", PACKAGES)


async def assert_refused(echo, error):
    with pytest.raises(Exception, match="VERIFY_FAILED") as caught:
        await echo(b"data")
    assert type(caught.value).__name__ == error


async def wait_for_handshakes():
    """Wait for the tasks of a server's handshakes that a client has left."""
    for task in asyncio.all_tasks():
        if task.get_coro().__name__ == "_accept_connection2":
            await asyncio.wait([task], timeout=PATIENCE)


@every_package
async def test_certificates_on_both_sides(strict_tls, known_tls, package):
    """Many at once, of all sizes."""
    server, client, _, _ = PACKAGES[package]
    sizes = (0, 1, 1000, 16_384, 100_000, 1_000_000, 3_000_000)
    async with server(strict_tls) as port, client(port, known_tls) as echo:

        async def one(number):
            body = bytes([number]) * (sizes[number % 7] + number)
            assert await echo(body) == (body, "client")

        await asyncio.gather(*map(one, range(35)))


@every_package
async def test_another_name_is_refused(client_tls, package):
    server, client, error, named = PACKAGES[package]
    other = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    other.load_cert_chain(CERTS / "other.pem", CERTS / "other.key")
    async with server(other) as port, client(port, client_tls) as echo:
        await assert_refused(echo, error)
        assert await echo(b"data", **named) == (b"data", "")
    await wait_for_handshakes()


# -- TLS in TLS --------------------------------------------------------------


@contextlib.asynccontextmanager
async def connect_proxy(tls):
    """A proxy that is spoken to over TLS itself; gives its URL, its count."""
    served = []

    async def pipe(reader, writer):
        with contextlib.suppress(OSError, asyncio.CancelledError):
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
        far_reader, far_writer = await asyncio.open_connection(
            "127.0.0.1", port
        )
        writer.write(b"HTTP/1.1 200 OK\r\n\r\n")
        await asyncio.gather(
            pipe(reader, far_writer), pipe(far_reader, writer)
        )
        for one in (writer, far_writer):
            with contextlib.suppress(OSError):
                await one.wait_closed()

    tasks = []
    server = await asyncio.start_server(
        lambda r, w: tasks.append(asyncio.ensure_future(serve(r, w))),
        "127.0.0.1",
        0,
        ssl=tls,
    )
    try:
        port = server.sockets[0].getsockname()[1]
        yield f"https://localhost:{port}", served
    finally:
        server.close()
        await asyncio.gather(*tasks)


async def test_aiohttp_through_a_proxy_is_tls_in_tls(server_tls, client_tls):
    """aiohttp looks at _start_tls_compatible and calls start_tls."""
    aiohttp = pytest.importorskip("aiohttp", reason="aiohttp is missing")

    async with (
        aiohttp_server(server_tls) as port,
        connect_proxy(server_tls) as (proxy, served),
        aiohttp.ClientSession() as session,
    ):
        url = f"https://localhost:{port}/echo"
        for size in (1, 1000, 3_000_000):
            body = b"x" * size
            async with session.post(
                url, data=io.BytesIO(body), proxy=proxy, ssl=client_tls
            ) as response:
                assert await response.read() == body
        assert set(served) == {f"localhost:{port}"}
