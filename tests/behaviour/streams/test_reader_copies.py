"""What copies of a StreamReader share with it, and what vars() shows.

copy.copy() makes a reader with the attributes of the first: both have one
_buffer, and each its own _eof and _paused from then on.
"""

from __future__ import annotations

import asyncio
import copy

import pytest
from net_helpers import iterations


async def read_some(reader, peer):
    """Leave b"rest" in the reader."""
    await peer.send(b"line\nrest")
    assert await reader.readline() == b"line\n"


async def test_a_copy_shares_the_buffer(opened):
    reader, _, peer = await opened(limit=77)
    await read_some(reader, peer)
    other = copy.copy(reader)
    assert type(other) is asyncio.StreamReader
    assert vars(other) == vars(reader)
    assert other._buffer is reader._buffer
    assert other._limit == 77
    await peer.send(b" more")
    await iterations(3)
    assert await other.readexactly(6) == b"rest m"
    assert await reader.readexactly(3) == b"ore"


async def test_a_copy_has_an_end_of_file_of_its_own(opened):
    reader, _, peer = await opened()
    await read_some(reader, peer)
    other = copy.copy(reader)
    assert await other.read(9) == b"rest"
    other.feed_eof()
    assert other.at_eof() and not reader.at_eof()
    await peer.send(b"more")
    assert await reader.read(9) == b"more"


async def test_a_copy_of_a_reader_that_waits(opened):
    reader, _, peer = await opened()
    task = asyncio.create_task(reader.readexactly(4))
    await iterations(1)
    other = copy.copy(reader)
    assert other._waiter is reader._waiter is not None
    await peer.send(b"1234")
    assert await task == b"1234"


async def test_vars(opened):
    reader, _, peer = await opened(limit=77)
    await read_some(reader, peer)
    reader.note = "mine"
    plain = asyncio.StreamReader(loop=reader._loop)
    assert set(vars(reader)) == {*vars(plain), "note"}
    assert vars(reader)["_limit"] == 77
    assert vars(reader)["_buffer"] == b"rest"
    vars(reader)["_limit"] = 3
    with pytest.raises(asyncio.LimitOverrunError):
        await reader.readuntil(b"\n")


async def test_another_dict(opened):
    reader, _, peer = await opened()
    await read_some(reader, peer)
    other = asyncio.StreamReader(limit=5, loop=reader._loop)
    other.feed_data(b"123456\n")
    reader.__dict__ = vars(other)
    assert reader._limit == 5
    with pytest.raises(ValueError, match="chunk is longer than limit"):
        await reader.readline()
    await peer.send(b"78\n")
    assert await reader.readline() == b"78\n"
