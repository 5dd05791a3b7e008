"""asyncpg and psycopg against a PostgreSQL server of the tests' own."""

from __future__ import annotations

import asyncio

import pytest
from interop_process import CERTS

pytest.importorskip("asyncpg", reason="asyncpg is not installed")

import asyncpg


@pytest.fixture(params=["tcp", "unix", "tls"])
def dsn(request, postgres, client_tls):
    """asyncpg.connect's arguments for each way to the server."""
    args = {"port": postgres.port, "user": postgres.user}
    args |= {"database": "postgres", "timeout": 15, "command_timeout": 15}
    if request.param == "unix":
        return {**args, "host": postgres.folder}
    tls = client_tls if request.param == "tls" else False
    return {**args, "host": "localhost", "ssl": tls}


async def test_queries(dsn):
    """Types, prepared statements, a cursor, an error, a large value."""
    conn = await asyncpg.connect(**dsn)
    try:
        secure = await conn.fetchval(
            "select ssl from pg_stat_ssl where pid = pg_backend_pid()"
        )
        assert secure is bool(dsn.get("ssl"))
        row = await conn.fetchrow("select 1 as a, 'b' as b, null as c")
        assert dict(row) == {"a": 1, "b": "b", "c": None}
        twice = await conn.prepare("select $1::int * 2")
        assert [await twice.fetchval(i) for i in range(5)] == [
            *(0, 2, 4, 6, 8)
        ]
        async with conn.transaction():
            cursor = conn.cursor("select generate_series(1, 1000)")
            assert sum([row[0] async for row in cursor]) == 500500
        with pytest.raises(asyncpg.UndefinedTableError):
            await conn.fetch("select * from absent")
        big = "x" * (3 << 20)
        assert await conn.fetchval("select $1::text", big) == big
    finally:
        conn.terminate()


async def test_psycopg(dsn):
    """A pipeline, COPY both ways, a notification, a cancelled query."""
    psycopg = pytest.importorskip("psycopg", reason="psycopg is not installed")
    where = {key: dsn[key] for key in ("host", "port", "user")}
    where |= {"dbname": "postgres", "sslmode": "disable"}
    if tls := bool(dsn.get("ssl")):
        where |= {"sslmode": "verify-full", "sslrootcert": CERTS / "ca.pem"}
    async with await psycopg.AsyncConnection.connect(
        **where, autocommit=True
    ) as conn:
        cursor = await conn.execute(
            "select ssl from pg_stat_ssl where pid = pg_backend_pid()"
        )
        assert await cursor.fetchone() == (tls,)
        query, numbers = "select %s::int", [(i,) for i in range(500)]
        async with conn.pipeline():
            cursors = [await conn.execute(query, n) for n in numbers]
        assert [await each.fetchone() for each in cursors] == numbers
        await conn.execute("create temp table t (n int)")
        async with cursor.copy("copy t from stdin") as copy:
            for n in numbers * 40:
                await copy.write_row(n)
        async with cursor.copy("copy t to stdout") as copy:
            rows = [int(row[0]) async for row in copy.rows()]
        assert rows == list(range(500)) * 40
        await conn.execute("listen news")
        await conn.execute("notify news, 'one'")
        notices = conn.notifies(stop_after=1)
        assert [notice.payload async for notice in notices] == ["one"]
        with pytest.raises(asyncio.TimeoutError):
            await asyncio.wait_for(conn.execute("select pg_sleep(600)"), 0.05)
        cursor = await conn.execute("select 1")
        assert await cursor.fetchone() == (1,)
