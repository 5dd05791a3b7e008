"""What programs see of a StreamReader whose state is native.

Each test runs on asyncio as well: texts, order, what is left after an error.
What a reader does with data, limits and ends is compared with asyncio's by the
programs of tests/unit/test_reader_programs.py.
"""

from __future__ import annotations

import asyncio
import inspect
import sys
import weakref

import pytest
from net_helpers import (
    iterations,
    waiting,
)


async def sent(peer, data):
    """Send, and let the reader have it."""
    await peer.send(data)
    await iterations(3)


async def test_the_buffer_is_asyncios(opened):
    reader, _, peer = await opened()
    await peer.send(b"one two")
    assert await reader.readexactly(4) == b"one "
    buffer = reader._buffer
    assert type(buffer) is bytearray
    assert buffer == b"two"
    buffer.clear()
    assert type(reader) is asyncio.StreamReader
    await sent(peer, b"three")
    assert reader._buffer is buffer
    assert await reader.read(9) == b"three"


@pytest.mark.parametrize("method", ["read", "readexactly", "readline"])
async def test_an_empty_buffer_that_was_seen(opened, method):
    """As redis looks, before each command, whether an answer is left over."""
    reader, _, peer = await opened()
    kind = type(reader)
    args = () if method == "readline" else (4,)
    for _ in range(3):
        assert not reader._buffer and len(reader._buffer) == 0
        await peer.send(b"abc\n")
        assert await getattr(reader, method)(*args) == b"abc\n"
        assert type(reader) is kind
    await sent(peer, b"left")
    assert reader._buffer == b"left"
    assert type(reader) is asyncio.StreamReader
    assert await reader.read(9) == b"left"


async def test_feed_data_while_a_view_of_the_buffer_exists(opened):
    """asyncio's bytearray cannot grow either while somebody has a view."""
    reader, _, _ = await opened()
    with memoryview(reader._buffer), pytest.raises(BufferError):
        reader.feed_data(b"data")
    reader.feed_data(b"more")
    assert await reader.read(9) == b"more"


async def test_isinstance_and_inspect(opened):
    reader, _, peer = await opened()
    assert isinstance(reader, asyncio.StreamReader)
    assert type(reader).__name__ == "StreamReader"
    assert repr(type(reader)) == repr(asyncio.StreamReader)
    for name in ("read", "readexactly", "readuntil", "readline"):
        assert inspect.iscoroutinefunction(getattr(reader, name))
    call = reader.readexactly(2)
    assert inspect.iscoroutine(call) and asyncio.iscoroutine(call)
    await peer.send(b"12")
    assert await call == b"12"
    signature = inspect.signature(reader.read)
    assert [p.name for p in signature.parameters.values()] == ["n"]
    assert isinstance(reader.__dict__, dict)
    reader.note = "mine"
    assert reader.note == "mine" and "note" in vars(reader)
    await peer.send(b"34")
    assert await reader.read(2) == b"34"
    assert weakref.ref(reader)() is reader


async def test_waiting_tasks_go_on_in_order(opened):
    """A task that reads is woken as one that waits for a future is."""
    reader, _, _ = await opened()
    order = []

    async def read(name):
        await reader.readexactly(2)
        order.append(name)

    async def wait(future, name):
        await future
        order.append(name)

    loop = asyncio.get_running_loop()
    before, after = loop.create_future(), loop.create_future()
    tasks = [
        asyncio.create_task(wait(before, "before")),
        asyncio.create_task(read("reader")),
        asyncio.create_task(wait(after, "after")),
    ]
    await iterations(1)
    before.set_result(None)
    reader.feed_data(b"ab")
    after.set_result(None)
    await asyncio.gather(*tasks)
    assert order == ["before", "reader", "after"]


async def test_a_refused_search_leaves_the_first_one_alone(opened):
    reader, _, peer = await opened()
    first = asyncio.create_task(reader.readuntil(b"\r\n"))
    await iterations(1)
    await peer.send(b"12\r")
    await iterations(3)
    with pytest.raises(RuntimeError, match="already waiting"):
        await reader.readline()
    await peer.send(b"\n34")
    assert await first == b"12\r\n"
    assert await reader.readexactly(2) == b"34"


@pytest.mark.parametrize("error", [ZeroDivisionError, asyncio.CancelledError])
@pytest.mark.parametrize("plain", [False, True])
async def test_a_waiter_fails_by_another(opened, error, plain):
    reader, _, peer = await opened()
    task = await waiting(reader.readexactly(3))
    if plain:
        vars(reader)
    if error is asyncio.CancelledError:
        reader._waiter.cancel()
    else:
        reader._waiter.set_exception(error)
    with pytest.raises(error):
        await task
    assert reader._waiter is None
    await peer.send(b"more\n")
    assert await reader.readline() == b"more\n"


@pytest.mark.parametrize("found", [False, True])
async def test_why_a_line_is_too_long(opened, found):
    reader, _, _ = await opened(limit=10)
    reader.feed_data(b"0123456789abc\n" if found else b"0123456789abc")
    handled = KeyError()
    try:
        raise handled
    except KeyError:
        with pytest.raises(ValueError, match="limit") as caught:
            await reader.readline()
    error = caught.value
    assert error.__cause__ is None and not error.__suppress_context__
    why = error.__context__
    assert type(why) is asyncio.LimitOverrunError
    assert (why.args, why.consumed) == (error.args, 13)
    assert why.__context__ is handled


@pytest.mark.parametrize("method", ["read", "readexactly"])
async def test_a_float_raises_where_bytes_are_taken(opened, method):
    """Before 3.15 it is a size for bytes that are buffered already."""
    reader, _, peer = await opened()
    task = await waiting(getattr(reader, method)(2.5))
    assert not task.done()
    await peer.send(b"abcdef")
    with pytest.raises(TypeError):
        await task
    if sys.version_info < (3, 15):
        assert await reader.readexactly(2) == b"ab"
        assert await reader.readexactly(8 / 2) == b"cdef"
