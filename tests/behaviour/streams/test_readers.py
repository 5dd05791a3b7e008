"""What programs see of a StreamReader whose state is native.

Each test runs on asyncio as well: texts, order, what is left after an error.
"""

from __future__ import annotations

import asyncio
import gc
import inspect
import sys
import weakref

import pytest
from net_helpers import (
    KIB,
    Peer,
    iterations,
    tcp_socketpair,
    waiting,
)
from patience import PATIENCE


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
async def test_the_buffer_is_read_while_a_task_waits(opened, method):
    reader, _, peer = await opened()
    args = () if method == "readline" else (6,)
    task = asyncio.create_task(getattr(reader, method)(*args))
    await iterations(1)
    assert reader._buffer == b""
    await peer.send(b"abc")
    if method == "read":
        assert await task == b"abc"
        return
    await iterations(3)
    assert reader._buffer == b"abc"
    await peer.send(b"de\n")
    assert await task == b"abcde\n"


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


async def test_an_empty_buffer_is_seen_while_the_transport_resumes(opened):
    reader, writer, peer = await opened(limit=4)
    await sent(peer, b"0123456789")
    assert reader._paused
    seen = []
    resume = writer.transport.resume_reading
    writer.transport.resume_reading = lambda: (
        seen.append(bytes(reader._buffer)),
        resume(),
    )
    assert await reader.read(10) == b"0123456789"
    assert seen == [b""]
    await sent(peer, b"more")
    assert await reader.read(10) == b"more"


async def test_isinstance_and_inspect(opened):
    reader, _, peer = await opened()
    assert isinstance(reader, asyncio.StreamReader)
    assert type(reader).__name__ == "StreamReader"
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


async def test_a_call_that_is_never_awaited_warns(opened):
    reader, _, _ = await opened()
    with pytest.warns(RuntimeWarning, match="StreamReader.read' was never"):
        reader.read(1)
        gc.collect()


async def test_a_separator_in_two_pieces(opened):
    reader, _, peer = await opened()
    task = asyncio.create_task(reader.readuntil(b"--end--"))
    await sent(peer, b"some --end")
    assert not task.done()
    await peer.send(b"--rest")
    assert await task == b"some --end--"
    assert await reader.read(10) == b"rest"


async def test_readuntil_over_the_limit(opened):
    reader, _, peer = await opened(limit=10)
    await peer.send(b"0123456789abc\nnext\n")
    with pytest.raises(asyncio.LimitOverrunError) as caught:
        await reader.readuntil(b"\n")
    assert caught.value.consumed == 13
    assert "is found, but chunk is longer" in str(caught.value)
    assert await reader.readexactly(14) == b"0123456789abc\n"
    assert await reader.readline() == b"next\n"
    await peer.send(b"x" * 30)
    with pytest.raises(asyncio.LimitOverrunError) as caught:
        await reader.readuntil(b"\r\n")
    assert caught.value.consumed == 29
    assert "is not found, and chunk exceed" in str(caught.value)
    assert await reader.readexactly(30) == b"x" * 30


async def test_readline_over_the_limit(opened):
    reader, _, peer = await opened(limit=10)
    await peer.send(b"0123456789abc\nnext\n")
    with pytest.raises(ValueError, match="is found, but chunk is longer"):
        await reader.readline()
    assert await reader.readline() == b"next\n"
    await peer.send(b"x" * 15)
    with pytest.raises(ValueError, match="is not found, and chunk exceed"):
        await reader.readline()
    await peer.send(b"good\n")
    assert await reader.readline() == b"good\n"


async def test_lines_to_the_end(opened):
    reader, _, peer = await opened()
    await peer.send(b"one\ntwo\nthr")
    peer.send_eof()
    assert [line async for line in reader] == [b"one\n", b"two\n", b"thr"]


async def test_data_received_before_a_reset_is_read(opened):
    reader, _, peer = await opened()
    task = asyncio.create_task(reader.readexactly(4))
    await iterations(1)
    await peer.send(b"last")
    assert await task == b"last"
    task = asyncio.create_task(reader.read(4))
    await iterations(1)
    peer.reset()
    with pytest.raises(ConnectionResetError):
        await task
    assert isinstance(reader.exception(), ConnectionResetError)


async def test_a_time_limit(opened):
    reader, _, peer = await opened()
    with pytest.raises(asyncio.TimeoutError):
        await asyncio.wait_for(reader.readexactly(4), 0.01)
    await peer.send(b"late")
    first, second = await asyncio.gather(
        asyncio.wait_for(reader.read(4), PATIENCE), asyncio.sleep(0, "slept")
    )
    assert (first, second) == (b"late", "slept")


async def test_pausing_and_resuming(opened):
    reader, writer, peer = await opened(limit=1000)
    transport = writer.transport
    await sent(peer, b"x" * 2000)
    assert transport.is_reading() and not reader._paused
    await sent(peer, b"y")
    assert not transport.is_reading() and reader._paused
    assert await reader.readexactly(1000) == b"x" * 1000
    assert not transport.is_reading()
    assert await reader.read(1) == b"x"
    assert transport.is_reading() and not reader._paused
    assert await reader.readexactly(1000) == b"x" * 999 + b"y"


async def test_a_program_pauses_the_transport(opened):
    reader, writer, peer = await opened()
    writer.transport.pause_reading()
    await peer.send(b"x" * 100 * KIB)
    task = asyncio.create_task(reader.readexactly(100 * KIB))
    await iterations(5)
    assert not task.done()
    writer.transport.resume_reading()
    assert await task == b"x" * 100 * KIB


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


def test_a_reader_in_a_cycle_is_collected(run):
    async def main():
        near, far = tcp_socketpair()
        reader, writer = await asyncio.open_connection(sock=near)
        peer = Peer(far)
        await peer.send(b"some more")
        assert await reader.read(4) == b"some"
        reader.me = reader
        writer.close()
        peer.close()
        await writer.wait_closed()
        return weakref.ref(reader)

    reader = run(main())
    gc.collect()
    assert reader() is None


@pytest.mark.parametrize(
    "method, args, got",
    [
        ("read", (3,), b""),
        ("readexactly", (3,), b"12\n"),
        ("readuntil", (b"\n",), b"12\n"),
        ("readline", (), b"12\n"),
    ],
)
async def test_a_waiter_of_a_plain_reader_is_settled_by_another(
    opened, method, args, got
):
    reader, _, peer = await opened()
    task = await waiting(getattr(reader, method)(*args))
    vars(reader)["_waiter"].set_result(None)
    await iterations(2)
    await sent(peer, b"12\n")
    assert await task == got
    assert reader._waiter is None
    await peer.send(b"more\n")
    assert await reader.readuntil(b"re\n") == b"12\n"[len(got) :] + b"more\n"


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


async def test_another_task_reads_between_the_parts_of_one(opened):
    """Who waits for much is woken by each part, and others may read then."""
    reader, _, _ = await opened()
    first = await waiting(reader.readexactly(4))
    reader.feed_data(b"12")
    assert reader._waiter is None
    second = reader.read(2)
    with pytest.raises(StopIteration) as caught:
        second.send(None)
    assert caught.value.value == b"12"
    third = reader.read(9)
    third.send(None)
    assert reader._waiter is not None
    third.close()
    assert reader._waiter is None
    await iterations(2)
    assert reader._waiter is not None
    reader.feed_data(b"3456")
    assert await first == b"3456"


@pytest.mark.parametrize("limit", [1000, 64 * KIB])
async def test_a_cancelled_readexactly_leaves_reading_paused(opened, limit):
    reader, writer, _ = await opened(limit=limit)
    task = await waiting(reader.readexactly(10 * limit))
    reader.feed_data(bytes(2 * limit))
    assert not reader._paused
    await iterations(1)
    reader.feed_data(b"1")
    assert reader._paused and not writer.transport.is_reading()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert reader._paused and not writer.transport.is_reading()
    await reader.readexactly(limit + 1)
    assert not reader._paused and writer.transport.is_reading()


async def test_waiting_for_more_than_the_limit_resumes_reading(opened):
    reader, writer, _ = await opened(limit=1000)
    task = await waiting(reader.readexactly(5000))
    reader.feed_data(bytes(4000))
    assert not writer.transport.is_reading()
    await iterations(2)
    assert writer.transport.is_reading()
    reader.feed_data(bytes(1000))
    assert await task == bytes(5000)


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


@pytest.mark.parametrize("plain", [False, True])
@pytest.mark.parametrize(
    "method, args",
    [
        ("read", (3,)),
        ("readexactly", (3,)),
        ("readuntil", (b"\n",)),
        ("readline", ()),
    ],
)
async def test_an_exception_after_the_wake_up_is_the_next_calls(
    opened, method, args, plain
):
    reader, _, _ = await opened()
    task = await waiting(getattr(reader, method)(*args))
    reader.feed_data(b"12\n")
    reader.set_exception(ZeroDivisionError())
    if plain:
        vars(reader)
    assert await task == b"12\n"
    with pytest.raises(ZeroDivisionError):
        await reader.read(1)


@pytest.mark.skipif(
    sys.version_info >= (3, 15), reason="asyncio refuses it from 3.15 on"
)
async def test_readexactly_of_a_float_that_is_buffered(opened):
    reader, _, peer = await opened()
    await sent(peer, b"abcdef")
    assert await reader.readexactly(2) == b"ab"
    assert await reader.readexactly(8 / 2) == b"cdef"


@pytest.mark.parametrize("method", ["read", "readexactly"])
async def test_a_float_raises_where_bytes_are_taken(opened, method):
    reader, _, peer = await opened()
    task = await waiting(getattr(reader, method)(2.5))
    assert not task.done()
    await peer.send(b"abcdef")
    with pytest.raises(TypeError):
        await task
    assert await reader.readexactly(6) == b"abcdef"
