"""redis-py and FastStream against a redis-server of the tests' own."""

from __future__ import annotations

import asyncio

import pytest
from interop_process import CERTS

pytest.importorskip("redis", reason="redis-py is not installed")

import redis.asyncio as redis

#: A client's own certificate, and those it trusts.
TLS = {
    "ssl": True,
    "ssl_check_hostname": True,
    "ssl_ca_certs": str(CERTS / "ca.pem"),
    "ssl_certfile": str(CERTS / "client.pem"),
    "ssl_keyfile": str(CERTS / "client.key"),
}


@pytest.mark.parametrize("protocol", [2, 3])
@pytest.mark.parametrize("way", ["tcp", "unix", "tls"])
async def test_commands(redis_server, way, protocol):
    where = {
        "tcp": {"host": "127.0.0.1", "port": redis_server.port},
        "unix": {"unix_socket_path": redis_server.path},
        "tls": {"host": "localhost", "port": redis_server.tls_port, **TLS},
    }
    async with redis.Redis(
        **where[way], protocol=protocol, decode_responses=True
    ) as client:
        await client.flushdb()
        assert await client.ping()
        await client.set("key", "value", px=60_000)
        assert await client.get("key") == "value"
        assert 0 < await client.pttl("key") <= 60_000
        await client.hset("hash", mapping={"a": 1, "b": 2})
        assert await client.hgetall("hash") == {"a": "1", "b": "2"}
        big = "x" * (4 << 20)
        await client.set("big", big)
        assert await client.get("big") == big
        with pytest.raises(redis.ResponseError):
            await client.lpush("key", 1)
        async with client.pipeline(transaction=False) as pipe:
            for i in range(10_000):
                pipe.rpush("list", i)
            assert await pipe.execute() == list(range(1, 10_001))


async def test_faststream(redis_server):
    """Messages through a chain of two subscribers, and a request."""
    reason = "FastStream is not installed"
    faststream = pytest.importorskip("faststream.redis", reason=reason)
    url = f"redis://127.0.0.1:{redis_server.port}"
    broker = faststream.RedisBroker(url, logger=None)
    got = asyncio.Queue()

    @broker.subscriber("in")
    @broker.publisher("out")
    async def double(number: int) -> int:
        return number * 2

    @broker.subscriber("out")
    async def keep(number: int) -> None:
        got.put_nowait(number)

    @broker.subscriber("negate")
    async def negate(number: int) -> int:
        return -number

    async with broker:
        await broker.start()
        for i in range(200):
            await broker.publish(i, "in")
        numbers = [await got.get() for _ in range(200)]
        assert sorted(numbers) == list(range(0, 400, 2))
        answer = await broker.request(7, "negate")
        assert await answer.decode() == -7
