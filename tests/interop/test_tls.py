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


def trusting_nobody() -> ssl.SSLContext:
    """A client's context that refuses the tests' certificates."""
    return ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)


# -- aiohttp ------------------------------------------------------------------


@contextlib.asynccontextmanager
async def aiohttp_server(tls):
    """An echo over HTTPS that tells the client's name; gives its port."""
    web = pytest.importorskip("aiohttp.web", reason="aiohttp is missing")

    async def echo(request):
        cert = request.transport.get_extra_info("peercert")
        name = dict(part[0] for part in cert["subject"]) if cert else {}
        return web.Response(
            body=await request.read(),
            headers={"X-Name": name.get("commonName", "")},
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


async def test_aiohttp_with_certificates_on_both_sides(strict_tls, known_tls):
    aiohttp = pytest.importorskip("aiohttp", reason="aiohttp is missing")

    async with aiohttp_server(strict_tls) as port:
        connector = aiohttp.TCPConnector(ssl=known_tls, limit=20)
        async with aiohttp.ClientSession(connector=connector) as session:

            async def one(number):
                body = bytes([number]) * (number * 10_000)
                url = f"https://localhost:{port}/echo"
                async with session.post(url, data=body) as response:
                    assert await response.read() == body
                    return response.headers["X-Name"]

            names = await asyncio.gather(*map(one, range(60)))
        assert set(names) == {"client"}


async def test_aiohttp_refuses_an_unknown_certificate(server_tls):
    aiohttp = pytest.importorskip("aiohttp", reason="aiohttp is missing")

    async with aiohttp_server(server_tls) as port:
        async with aiohttp.ClientSession() as session:
            url = f"https://localhost:{port}/echo"
            with pytest.raises(aiohttp.ClientConnectorCertificateError):
                await session.post(url, ssl=trusting_nobody())


def test_aiohttp_refuses_another_name(run, client_tls):
    aiohttp = pytest.importorskip("aiohttp", reason="aiohttp is missing")
    other = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    other.load_cert_chain(CERTS / "other.pem", CERTS / "other.key")

    async def main():
        async with aiohttp_server(other) as port:
            async with aiohttp.ClientSession() as session:
                url = f"https://localhost:{port}/echo"
                with pytest.raises(aiohttp.ClientConnectorCertificateError):
                    await session.post(url, ssl=client_tls)
                async with session.post(
                    url, ssl=client_tls, server_hostname="other.test"
                ) as response:
                    assert response.status == 200

    run(main())


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


# -- httpx --------------------------------------------------------------------


async def test_httpx_with_certificates_on_both_sides(strict_tls, known_tls):
    httpx = pytest.importorskip("httpx", reason="httpx is missing")

    async with (
        aiohttp_server(strict_tls) as port,
        httpx.AsyncClient(verify=known_tls, trust_env=False) as client,
    ):
        url = f"https://localhost:{port}/echo"
        for size in (0, 1, 100_000, 3_000_000):
            got = await client.post(url, content=b"x" * size)
            assert got.content == b"x" * size
            assert got.headers["X-Name"] == "client"


async def test_httpx_refuses_an_unknown_certificate(server_tls):
    httpx = pytest.importorskip("httpx", reason="httpx is missing")

    async with (
        aiohttp_server(server_tls) as port,
        httpx.AsyncClient(verify=trusting_nobody(), trust_env=False) as client,
    ):
        with pytest.raises(httpx.ConnectError, match="VERIFY_FAILED"):
            await client.get(f"https://localhost:{port}/echo")


# -- asyncpg ------------------------------------------------------------------


@pytest.fixture
def pg_tls(postgres, client_tls):
    """asyncpg.connect's arguments for TLS with the name verified."""
    return {
        "host": "localhost",
        "port": postgres.port,
        "user": postgres.user,
        "database": "postgres",
        "ssl": client_tls,
    }


async def test_asyncpg_pool(pg_tls):
    """Large values both ways on several connections, each secure."""
    asyncpg = pytest.importorskip("asyncpg", reason="asyncpg is missing")

    async with asyncpg.create_pool(**pg_tls, min_size=2, max_size=5) as pool:

        async def one(number):
            text = chr(97 + number % 26) * (number * 5000)
            async with pool.acquire() as conn:
                assert await conn.fetchval("select $1::text", text) == (text)
                return await conn.fetchval(
                    "select ssl from pg_stat_ssl where pid = pg_backend_pid()"
                )

        assert set(await asyncio.gather(*map(one, range(60)))) == {True}


async def test_asyncpg_copy_and_cancellation(pg_tls):
    """COPY both ways; a time limit opens a second TLS connection."""
    asyncpg = pytest.importorskip("asyncpg", reason="asyncpg is missing")

    conn = await asyncpg.connect(**pg_tls)
    try:
        await conn.execute("create temp table t (n int, s text)")
        rows = [(i, f"row {i}" * 10) for i in range(20_000)]
        await conn.copy_records_to_table("t", records=rows)
        got = bytearray()

        async def take(data):
            got.extend(data)

        await conn.copy_from_table("t", output=take)
        assert got.count(b"\n") == len(rows)
        with pytest.raises(asyncio.TimeoutError):
            await conn.execute("select pg_sleep(600)", timeout=0.05)
        assert await conn.fetchval("select count(*) from t") == 20_000
    finally:
        await conn.close()


async def test_asyncpg_refuses_an_unknown_certificate(pg_tls):
    asyncpg = pytest.importorskip("asyncpg", reason="asyncpg is missing")

    with pytest.raises(ssl.SSLCertVerificationError):
        await asyncpg.connect(**{**pg_tls, "ssl": trusting_nobody()})


# -- redis --------------------------------------------------------------------


async def answer_redis(reader, writer, store):
    """As much of redis-server as the tests ask for."""
    with contextlib.suppress(asyncio.IncompleteReadError, ConnectionError):
        while True:
            count = int((await reader.readuntil(b"\r\n"))[1:])
            words = []
            for _ in range(count):
                size = int((await reader.readuntil(b"\r\n"))[1:])
                words.append((await reader.readexactly(size + 2))[:-2])
            name = words[0].upper()
            if name == b"GET":
                value = store.get(words[1])
                if value is None:
                    writer.write(b"$-1\r\n")
                else:
                    writer.write(b"$%d\r\n%b\r\n" % (len(value), value))
            elif name == b"SET":
                store[words[1]] = words[2]
                writer.write(b"+OK\r\n")
            elif name == b"PING":
                writer.write(b"+PONG\r\n")
            else:
                writer.write(b"-ERR unknown command\r\n")
            await writer.drain()
    writer.close()
    with contextlib.suppress(OSError):
        await writer.wait_closed()


@contextlib.asynccontextmanager
async def redis_over_tls(tls):
    """A responder on the loop; gives its port."""
    store, tasks = {}, []
    server = await asyncio.start_server(
        lambda r, w: tasks.append(
            asyncio.ensure_future(answer_redis(r, w, store))
        ),
        "127.0.0.1",
        0,
        ssl=tls,
        limit=1 << 20,
    )
    try:
        yield server.sockets[0].getsockname()[1]
    finally:
        server.close()
        await asyncio.gather(*tasks)


def redis_client(port, **kwargs):
    redis = pytest.importorskip("redis.asyncio", reason="redis-py is missing")
    return redis.Redis(
        host="localhost",
        port=port,
        ssl=True,
        protocol=2,
        ssl_check_hostname=True,
        **{"ssl_ca_certs": str(CERTS / "ca.pem"), **kwargs},
    )


async def test_redis(server_tls):
    """Small and large values, a pipeline, many tasks on one pool."""
    async with redis_over_tls(server_tls) as port:
        async with redis_client(port, max_connections=10) as client:
            assert await client.ping()
            big = b"x" * (1 << 20)
            await client.set("big", big)
            assert await client.get("big") == big
            async with client.pipeline(transaction=False) as pipe:
                for number in range(300):
                    pipe.set(f"key:{number}", number)
                assert await pipe.execute() == [True] * 300
            got = await asyncio.gather(
                *(client.get(f"key:{number}") for number in range(10))
            )
            assert got == [b"%d" % number for number in range(10)]


async def test_redis_with_certificates_on_both_sides(strict_tls):
    async with redis_over_tls(strict_tls) as port:
        async with redis_client(
            port,
            ssl_certfile=str(CERTS / "client.pem"),
            ssl_keyfile=str(CERTS / "client.key"),
        ) as client:
            assert await client.ping()


async def test_redis_refuses_an_unknown_certificate(server_tls):
    redis = pytest.importorskip("redis", reason="redis-py is missing")

    async with redis_over_tls(server_tls) as port:
        async with redis_client(
            port,
            ssl_ca_certs=str(CERTS / "client.pem"),
            retry=None,
        ) as client:
            with pytest.raises(redis.ConnectionError, match="VERIFY_FAIL"):
                await client.ping()


# -- websockets ---------------------------------------------------------------


@contextlib.asynccontextmanager
async def websocket_server(tls):
    """An echo; gives its URL."""
    server = pytest.importorskip(
        "websockets.asyncio.server", reason="websockets is missing"
    )

    async def echo(ws):
        async for message in ws:
            await ws.send(message)

    async with server.serve(
        echo, "127.0.0.1", 0, ssl=tls, max_size=None
    ) as serving:
        port = serving.sockets[0].getsockname()[1]
        yield f"wss://localhost:{port}"


async def test_websockets_many_at_once(strict_tls, known_tls):
    """Twenty clients with certificates, messages of all sizes."""
    client = pytest.importorskip(
        "websockets.asyncio.client", reason="websockets is missing"
    )

    async with websocket_server(strict_tls) as url:

        async def talk(number):
            async with client.connect(
                url, ssl=known_tls, proxy=None, max_size=None
            ) as ws:
                for size in (1, 1000, 16_384, 100_000, 1_000_000):
                    data = bytes([number]) * size
                    await ws.send(data)
                    assert await ws.recv() == data
                return (await ws.ping()) is not None

        assert all(await asyncio.gather(*map(talk, range(20))))


async def test_websockets_refuse_an_unknown_certificate(server_tls):
    client = pytest.importorskip(
        "websockets.asyncio.client", reason="websockets is missing"
    )

    async with websocket_server(server_tls) as url:
        with pytest.raises(ssl.SSLCertVerificationError):
            await client.connect(url, ssl=trusting_nobody(), proxy=None)
