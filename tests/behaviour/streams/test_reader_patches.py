"""Methods that a program has put in the place of a StreamReader's.

They are called whenever they were put there, on the class or on the object,
before the connection was made or with one that waits.  A reader or protocol
may also be given another class.
"""

import asyncio

import pytest
from net_helpers import waiting


def noting(original, seen, name):
    """A method that notes its calls and goes on to the original."""

    def method(*args, **kwargs):
        seen.add(name)
        return original(*args, **kwargs)

    return method


METHODS = [
    "read",
    "readexactly",
    "readuntil",
    "readline",
    "feed_data",
    "at_eof",
    "exception",
    "_wakeup_waiter",
    "_wait_for_data",
    "_maybe_resume_transport",
]


async def use(reader, writer, peer):
    """Call all there is."""
    await peer.send(b"12")
    assert await reader.read(2) == b"12"
    await peer.send(b"34")
    assert await reader.readexactly(2) == b"34"
    await peer.send(b"5\n6\n")
    assert await reader.readuntil(b"\n") == b"5\n"
    assert await reader.readline() == b"6\n"
    await writer.drain()
    assert not reader.at_eof()


@pytest.mark.parametrize("when", ["before", "after", "waiting", "on one"])
async def test_patched_methods_are_called(opened, monkeypatch, when):
    """Each of them, on the class or on one object."""
    seen = set()

    def patch(owner):
        for name in METHODS:
            method = noting(getattr(owner, name), seen, name)
            monkeypatch.setattr(owner, name, method)

    if when == "before":
        patch(asyncio.StreamReader)
    reader, writer, peer = await opened()
    await use(reader, writer, peer)
    if when == "waiting":
        task = await waiting(reader.readexactly(3))
    if when != "before":
        assert not seen
        patch(reader if when == "on one" else asyncio.StreamReader)
    if when == "waiting":
        await peer.send(b"xyz")
        assert await task == b"xyz"
    await use(reader, writer, peer)
    assert seen == set(METHODS)


@pytest.mark.parametrize("target", ["class", "object"])
@pytest.mark.parametrize("name", ["data_received", "eof_received"])
async def test_a_patched_protocol_is_called(opened, monkeypatch, name, target):
    reader, writer, peer = await opened()
    await use(reader, writer, peer)
    protocol = writer.transport.get_protocol()
    seen = set()
    owner = asyncio.StreamReaderProtocol if target == "class" else protocol
    method = noting(getattr(owner, name), seen, name)
    monkeypatch.setattr(owner, name, method)
    await use(reader, writer, peer)
    peer.send_eof()
    assert await reader.read() == b""
    assert name in seen


async def test_the_class_of_a_protocol_is_changed(opened):
    class Loud(asyncio.StreamReaderProtocol):
        def data_received(self, data):
            super().data_received(data.upper())

    reader, writer, peer = await opened()
    await peer.send(b"a\n")
    assert await reader.readline() == b"a\n"
    writer.transport.get_protocol().__class__ = Loud
    await peer.send(b"b\n")
    assert await reader.readline() == b"B\n"


async def test_a_class_above_that_of_a_reader(opened, loop):
    """Programs derive from the class of an object at hand as well."""
    reader, writer, peer = await opened()

    class Derived(type(reader)):
        pass

    other = Derived(limit=50, loop=loop)
    assert other._limit == 50
    other.feed_data(b"line\nrest")
    assert await other.readline() == b"line\n"
    assert await other.readuntil(b"r") == b"r"
    assert await other.readexactly(2) == b"es"
    other.feed_eof()
    assert not other.at_eof()
    assert "1 bytes" in repr(other)
    assert await other.read() == b"t"
    assert other.exception() is None
