"""PyMongo's asyncio client and motor against mongo_responder.

PyMongo drives the loop's sockets itself; motor runs the blocking driver in a
thread pool of its own and comes back through call_soon_threadsafe.  Both must
do the same calls with the same results.
"""

from __future__ import annotations

import asyncio
import contextlib

import pytest

pytest.importorskip("pymongo", reason="PyMongo is not installed")

from mongo_responder import MongoResponder
from pymongo.errors import (
    BulkWriteError,
    DuplicateKeyError,
    OperationFailure,
    ServerSelectionTimeoutError,
)


@pytest.fixture
def server():
    with MongoResponder() as server:
        yield server


@pytest.fixture(params=["pymongo", "motor"])
def connected(request, server):
    """connected(): an asynchronous context with a client."""
    if request.param == "motor":
        reason = "motor is not installed"
        motor = pytest.importorskip("motor.motor_asyncio", reason=reason)
        make = motor.AsyncIOMotorClient
    else:
        import pymongo

        make = pymongo.AsyncMongoClient

    @contextlib.asynccontextmanager
    async def connected(url=server.url, **kwargs):
        client = make(url, **kwargs)
        try:
            yield client
        finally:
            closing = client.close()
            if closing is not None:
                await closing

    return connected


def test_documents(run, connected, server):
    """Insert, find, count, update, delete, and what a server refuses."""

    async def main():
        async with connected() as client:
            assert await client.admin.command("ping") == {"ok": 1.0}
            things = client.db.things
            one = await things.insert_one({"name": "one", "n": 1})
            many = [{"_id": i, "n": i, "even": i % 2 == 0} for i in range(50)]
            await things.insert_many(many)
            found = await things.find_one({"_id": one.inserted_id})
            assert found["name"] == "one"
            assert await things.count_documents({"even": True}) == 25
            changed = await things.update_many(
                {"even": True}, {"$inc": {"n": 1000}}
            )
            assert changed.modified_count == 25
            gone = await things.delete_many({"n": {"$lt": 1000}})
            assert gone.deleted_count == 26
            left = await things.find().sort("n", -1).to_list(None)
            assert [d["_id"] for d in left] == list(range(48, -1, -2))
            with pytest.raises(DuplicateKeyError):
                await things.insert_one({"_id": 0})
            with pytest.raises(BulkWriteError):
                await things.insert_many([{"_id": 99}, {"_id": 99}])
            with pytest.raises(OperationFailure, match="no such command"):
                await client.admin.command("absent")

    run(main())
    assert "endSessions" in server.store.commands


def test_cursors_in_batches(run, connected, server):
    async def main():
        async with connected() as client:
            things = client.db.things
            await things.insert_many({"_id": i} for i in range(1000))
            ids = [d["_id"] async for d in things.find(batch_size=100)]
            assert ids == list(range(1000))
            async for _ in (cursor := things.find(batch_size=10)):
                break
            await cursor.close()

    run(main())
    assert server.store.commands.count("getMore") >= 9
    assert server.store.cursors == {}


async def test_large_documents(connected):
    """15 MiB each way: many reads and writes a message."""
    text = "x" * (15 << 20)

    async with connected() as client:
        await client.db.things.insert_one({"_id": 1, "text": text})
        found = await client.db.things.find_one({"_id": 1})
        assert found["text"] == text


async def test_many_tasks(connected):
    """100 tasks over a pool of 10 connections."""
    async with connected(maxPoolSize=10) as client:
        things = client.db.things

        async def work(i):
            await things.insert_one({"_id": i})
            return (await things.find_one({"_id": i}))["_id"]

        got = await asyncio.gather(*(work(i) for i in range(100)))
        assert got == list(range(100))
        assert await things.count_documents({}) == 100


# PyMongo drops the socket of a refused connect without closing it, on
# asyncio too.
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
async def test_no_server(connected):
    async with connected(
        "mongodb://127.0.0.1:1", serverSelectionTimeoutMS=100
    ) as client:
        with pytest.raises(ServerSelectionTimeoutError):
            await client.admin.command("ping")
