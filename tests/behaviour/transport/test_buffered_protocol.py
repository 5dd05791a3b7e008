"""BufferedProtocol: get_buffer and buffer_updated.

Data is read straight into the protocol's buffer; get_buffer may do anything,
also end or pause the connection, and its mistakes end it with an error.
"""

from __future__ import annotations

import array

import pytest
from net_helpers import (
    BufferedRecorder,
    Recorder,
    every_kind,
    every_kind_and_tls,
    iterations,
    pattern,
    spin,
)


@every_kind
async def test_what_the_last_data_schedules_runs_before_eof(
    transport_pair, loop
):
    """Also if the data fills the buffer, and more is looked for."""

    def reply_soon(protocol, size):
        loop.call_soon(protocol.transport.write, b"reply")

    c = await transport_pair(BufferedRecorder(4, data=reply_soon))
    await c.peer.send(b"data")
    c.peer.send_eof()
    assert await c.peer.recv_exactly(5) == b"reply"
    await c.protocol.wait_lost()


@every_kind_and_tls
async def test_kinds_of_buffer(transport_pair):
    protocol = BufferedRecorder()
    c = await transport_pair(protocol)
    for name, make in BUFFERS.items():
        protocol.buffer = make(100)
        await c.peer.send(name.encode())
        await protocol.wait_data(len(name))
        assert protocol.data == name.encode()
        protocol.data.clear()


@every_kind_and_tls
async def test_the_buffer_is_not_exported_between_reads(transport_pair):
    """The protocol may resize its buffer in buffer_updated."""

    def grow(protocol, nbytes):
        protocol.buffer += b"\0" * 10

    c = await transport_pair(BufferedRecorder(8, data=grow))
    await c.peer.send(b"x" * 30)
    assert await c.protocol.wait_data(30) == b"x" * 30
    c.protocol.buffer.clear()
    c.protocol.buffer += bytes(100)
    await c.peer.send(b"y" * 50)
    assert (await c.protocol.wait_data(80))[30:] == b"y" * 50


def zero_division():
    raise ZeroDivisionError


NO_BUFFER = "Fatal error: protocol.get_buffer() call failed."
NOT_WRITABLE = "Fatal read error on socket transport"
EMPTY = "get_buffer() returned an empty buffer"


@pytest.mark.parametrize(
    "give, error, message",
    [
        (bytearray, RuntimeError(EMPTY), NO_BUFFER),
        (lambda: memoryview(bytearray()), RuntimeError(EMPTY), NO_BUFFER),
        (zero_division, ZeroDivisionError(), NO_BUFFER),
        (lambda: None, TypeError, NO_BUFFER),
        (lambda: 5, TypeError, NO_BUFFER),
        (lambda: b"read-only", "bytes", NOT_WRITABLE),
        (lambda: memoryview(b"read-only"), "memoryview", NOT_WRITABLE),
        (lambda: memoryview(bytearray(10))[::2], "memoryview", NOT_WRITABLE),
        (lambda: "text", "str", NOT_WRITABLE),
        (lambda: [0] * 10, "list", NOT_WRITABLE),
    ],
    ids="empty empty-view raises None int bytes view step str list".split(),
)
@every_kind
async def test_wrong_buffers_end_the_connection(
    transport_pair, reports, give, error, message
):
    protocol = BufferedRecorder(get_buffer=lambda p, hint: give())
    c = await transport_pair(protocol)
    await c.peer.send(b"data")
    exc = await c.protocol.wait_lost()
    if isinstance(error, str):
        error = TypeError(
            "recv_into() argument 1 must be read-write bytes-like object, "
            f"not {error}"
        )
    if isinstance(error, Exception):
        assert str(exc) == str(error)
        error = type(error)
    assert type(exc) is error
    assert c.protocol.names == ["made", "lost"]
    (report,) = reports
    assert report["exception"] is exc
    assert report["transport"] is c.transport
    assert report["message"] == message
    reports.clear()


@pytest.mark.parametrize("how", ["close", "abort"])
@every_kind
async def test_ending_the_connection_inside_get_buffer(transport_pair, how):
    """What was read for it is dropped or delivered, then it is lost."""

    def end(protocol, hint):
        getattr(protocol.transport, how)()
        return protocol.buffer

    c = await transport_pair(BufferedRecorder(get_buffer=end))
    await c.peer.send(b"data")
    assert await c.protocol.wait_lost() is None
    assert c.protocol.names in (
        ["made", "lost"],
        ["made", "data", "lost"],
    )


@every_kind
async def test_pausing_inside_get_buffer(transport_pair):
    """Nothing is lost, and at most the one read goes through."""
    pause = [True]

    def stop(protocol, hint):
        if pause:
            pause.clear()
            protocol.transport.pause_reading()
        return protocol.buffer

    protocol = BufferedRecorder(16, get_buffer=stop)
    c = await transport_pair(protocol)
    data = pattern(100)
    await c.peer.send(data)
    await spin(lambda: not pause)
    await iterations(10)
    assert len(c.protocol.data) in (0, 16)
    assert set(c.protocol.hints) == {-1}
    c.transport.resume_reading()
    assert await c.protocol.wait_data(100) == data


@pytest.mark.parametrize("make", [Recorder, BufferedRecorder])
@every_kind
async def test_switching_the_protocol_inside_get_buffer(
    transport_pair, loop_kind, make
):
    """The new protocol reads, into a buffer of its own."""
    if loop_kind == "asyncio":
        pytest.skip("asyncio tells the new protocol of the old one's buffer")
    second = make()

    def switch(protocol, hint):
        protocol.transport.set_protocol(second)
        return protocol.buffer

    first = BufferedRecorder(get_buffer=switch)
    c = await transport_pair(first)
    await c.peer.send(b"data")
    await second.wait_data(4)
    await c.peer.send(b"more")
    assert await second.wait_data(8) == b"datamore"
    assert first.data == b""
    c.transport.set_protocol(first)


BUFFERS = {
    "bytearray": bytearray,
    "memoryview": lambda size: memoryview(bytearray(size)),
    "slice": lambda size: memoryview(bytearray(2 * size))[size:],
    "array": lambda size: array.array("B", bytes(size)),
}
