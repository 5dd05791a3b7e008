"""A StreamReader that is given another class, or whose state is asked for."""

from __future__ import annotations

import asyncio

import pytest


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
