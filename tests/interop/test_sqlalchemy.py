"""SQLAlchemy's asyncio side, over asyncpg, on a real PostgreSQL.

Its synchronous core runs in greenlets that switch to the loop to wait.
"""

from __future__ import annotations

import asyncio
import contextlib

import pytest

pytest.importorskip("sqlalchemy", reason="SQLAlchemy is not installed")
pytest.importorskip("greenlet", reason="greenlet is not installed")
pytest.importorskip("asyncpg", reason="asyncpg is not installed")

from sqlalchemy import URL, Integer, String, func, select
from sqlalchemy.ext.asyncio import async_sessionmaker, create_async_engine
from sqlalchemy.orm import DeclarativeBase, mapped_column


class Base(DeclarativeBase):
    pass


class Item(Base):
    __tablename__ = "item"

    id = mapped_column(Integer, primary_key=True)
    name = mapped_column(String, unique=True)


@contextlib.asynccontextmanager
async def database(pg):
    """An engine on tables that exist as long as the test."""
    url = URL.create(
        "postgresql+asyncpg",
        username=pg["user"],
        host=pg["host"],
        port=pg["port"],
        database=pg["database"],
    )
    engine = create_async_engine(url, pool_size=4, max_overflow=0)
    try:
        async with engine.begin() as conn:
            await conn.run_sync(Base.metadata.create_all)
        yield engine
    finally:
        async with engine.begin() as conn:
            await conn.run_sync(Base.metadata.drop_all)
        await engine.dispose()


async def test_sessions_at_once(pg):
    """20 transactions over 4 connections, then all is read as a stream."""
    async with database(pg) as engine:
        session = async_sessionmaker(engine, expire_on_commit=False)

        async def add(i):
            async with session.begin() as s:
                s.add_all(Item(name=f"{i}-{n}") for n in range(10))

        await asyncio.gather(*(add(i) for i in range(20)))
        async with session() as s:
            assert await s.scalar(select(func.count(Item.id))) == 200
            result = await s.stream_scalars(select(Item.name))
            names = {name async for name in result}
            assert names == {f"{i}-{n}" for i in range(20) for n in range(10)}
