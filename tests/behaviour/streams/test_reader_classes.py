"""A StreamReader that is given another class, or whose state is asked for.

copy.copy() makes a reader with the attributes of the first: both have one
_buffer, and each its own _eof and _paused from then on.
"""

from __future__ import annotations

import asyncio
import copy
import copyreg
import pickle

import pytest
from net_helpers import iterations


class Upper(asyncio.StreamReader):
    """A reader of an application's own."""

    def feed_data(self, data):
        super().feed_data(data.upper())


@pytest.fixture
def part_read(opened):
    """Return what opens a reader that has b"rest"."""

    async def open_one(**options):
        reader, writer, peer = await opened(**options)
        await peer.send(b"line\nrest")
        assert await reader.readline() == b"line\n"
        return reader, writer, peer

    return open_one


async def test_a_class_set_by_object(part_read):
    reader, _, _ = await part_read()
    object.__setattr__(reader, "__class__", Upper)
    assert await reader.readexactly(4) == b"rest"


async def test_a_class_above_its_own(part_read):
    reader, _, _ = await part_read()

    class Above(type(reader)):
        pass

    reader.__class__ = Above
    assert type(reader) is Above
    assert await reader.readexactly(3) == b"res"
    reader.__class__ = Upper
    reader.feed_data(b"a")
    assert await reader.readexactly(2) == b"tA"


@pytest.mark.parametrize("value", [int, 5, None, asyncio.Protocol])
async def test_invalid_reader_classes(part_read, value):
    reader, _, _ = await part_read()
    with pytest.raises(TypeError, match="__class__"):
        reader.__class__ = value
    assert await reader.readexactly(4) == b"rest"


async def test_its_class_cannot_be_deleted(part_read):
    reader, _, _ = await part_read()
    with pytest.raises(TypeError, match="can't delete __class__ attribute"):
        del reader.__class__
    assert await reader.readexactly(4) == b"rest"


async def test_the_state_for_a_copy(part_read):
    reader, _, _ = await part_read(limit=77)
    state = reader.__getstate__()
    assert set(state) == set(vars(asyncio.StreamReader(loop=reader._loop)))
    assert state["_buffer"] == b"rest"
    assert state["_limit"] == 77


@pytest.mark.parametrize("protocol", [0, 1, 2, 4])
async def test_state_of_a_copy(part_read, protocol):
    reader, _, _ = await part_read()
    made = reader.__reduce_ex__(protocol)
    function = copyreg._reconstructor if protocol < 2 else copyreg.__newobj__
    assert made[0] is function
    assert made[1][0] is asyncio.StreamReader
    assert made[2]["_buffer"] == b"rest"


async def test_state_of_a_copy_without_a_protocol(part_read):
    reader, _, _ = await part_read()
    assert reader.__reduce__()[1][0] is asyncio.StreamReader


async def test_it_cannot_be_pickled(part_read):
    reader, _, _ = await part_read()
    with pytest.raises((TypeError, AttributeError)):
        pickle.dumps(reader)
    assert await reader.readexactly(4) == b"rest"


async def test_a_copy_shares_the_buffer(part_read):
    reader, _, peer = await part_read(limit=77)
    other = copy.copy(reader)
    assert type(other) is asyncio.StreamReader
    assert vars(other) == vars(reader)
    assert other._buffer is reader._buffer
    assert other._limit == 77
    await peer.send(b" more")
    await iterations(3)
    assert await other.readexactly(6) == b"rest m"
    assert await reader.readexactly(3) == b"ore"


async def test_a_copy_has_an_end_of_file_of_its_own(part_read):
    reader, _, peer = await part_read()
    other = copy.copy(reader)
    assert await other.read(9) == b"rest"
    other.feed_eof()
    assert other.at_eof() and not reader.at_eof()
    await peer.send(b"more")
    assert await reader.read(9) == b"more"


async def test_vars(part_read):
    reader, _, _ = await part_read(limit=77)
    reader.note = "mine"
    plain = asyncio.StreamReader(loop=reader._loop)
    assert set(vars(reader)) == {*vars(plain), "note"}
    assert vars(reader)["_limit"] == 77
    assert vars(reader)["_buffer"] == b"rest"
    vars(reader)["_limit"] = 3
    with pytest.raises(asyncio.LimitOverrunError):
        await reader.readuntil(b"\n")


async def test_another_dict(part_read):
    reader, _, peer = await part_read()
    other = asyncio.StreamReader(limit=5, loop=reader._loop)
    other.feed_data(b"123456\n")
    reader.__dict__ = vars(other)
    assert reader._limit == 5
    with pytest.raises(ValueError, match="chunk is longer than limit"):
        await reader.readline()
    await peer.send(b"78\n")
    assert await reader.readline() == b"78\n"
