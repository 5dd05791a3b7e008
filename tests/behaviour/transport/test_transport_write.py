"""write, writelines and write_eof of a stream transport.

What arguments they take, what leaves in which order, and what they do when
the connection no longer takes data.
"""

from __future__ import annotations

import array
import contextlib
import logging
import re

import pytest
from net_helpers import (
    MIB,
    PY312,
    PY314,
    every_kind,
    every_kind_and_tls,
    iterations,
    pattern,
)

BULK = 2 * MIB
WARNING = "socket.send() raised exception."


WRITTEN = [  # the method, its argument, what arrives
    ("write", b"some data", b"some data"),
    ("write", bytearray(b"data"), b"data"),
    ("write", memoryview(b"0123456789")[3:7], b"3456"),
    ("write", b"", b""),
    ("writelines", [b"a", bytearray(b"bc"), memoryview(b"def")], b"abcdef"),
    ("writelines", (b"h", b"i"), b"hi"),
    ("writelines", [b"a", b"", b"b"], b"ab"),
]


EMPTY = [[], (), [b""], [b"", b"", b""], iter(())]


@every_kind_and_tls
async def test_what_is_written_arrives(transport_pair, loop_kind):
    c = await transport_pair()
    for method, data, expected in WRITTEN:
        assert getattr(c.transport, method)(data) is None
        assert await c.peer.recv_exactly(len(expected)) == expected
    c.transport.writelines(b"%d" % number for number in range(3))
    assert await c.peer.recv_exactly(3) == b"012"
    if loop_kind == "asyncio" and PY312:
        return  # it stalls on empty chunks, or fails an assertion
    for nothing in EMPTY:
        c.transport.writelines(nothing)
        c.transport.write(b"after")
        assert await c.peer.recv_exactly(5) == b"after"
        assert c.transport.get_write_buffer_size() == 0


KINDS = "bytes, bytearray, or memoryview" if PY314 else "bytes-like"


REFUSED = [
    "text",
    None,
    1,
    1.5,
    [1, 2],
    [b"a"],
    {},
    object(),
    array.array("b"),
]


@every_kind
async def test_refused_arguments(transport_pair):
    c = await transport_pair()
    write, writelines = c.transport.write, c.transport.writelines
    for bad in REFUSED:
        text = f"data argument must be a {KINDS} object, not "
        with pytest.raises(TypeError, match=f"^{re.escape(text)}") as caught:
            write(bad)
        assert str(caught.value).endswith(f"'{type(bad).__name__}'")
    for wrong in (
        lambda: write(),
        lambda: write(b"a", b"b"),
        lambda: write(bytes_=b"a"),
        lambda: writelines([b"a", "text"]),
        lambda: writelines([1]),
        lambda: writelines(5),
    ):
        with pytest.raises(TypeError):
            wrong()
    # asyncio from 3.12 takes any false value for "no data".
    with contextlib.suppress(TypeError):
        writelines(None)
    await iterations()
    assert c.peer.nothing_to_read()
    write(b"still works")
    assert await c.peer.recv_exactly(11) == b"still works"


@every_kind_and_tls
async def test_a_bytearray_may_change_after_write(transport_pair, loop_kind):
    """Of the first one a part is sent, and none of the others."""
    if loop_kind == "asyncio" and PY312:
        pytest.skip("asyncio from 3.12 keeps the caller's own buffer")

    c = await transport_pair()
    c.shrink()
    large, data = bytearray(pattern(BULK)), bytearray(b"before" * 100)
    c.transport.write(large)
    total = c.fill()
    c.transport.write(data)
    c.transport.write(memoryview(data))
    large[:] = bytes(BULK)
    data[:] = b"after!" * 100
    del data[10:]
    assert await c.peer.recv_exactly(BULK) == pattern(BULK)
    await c.peer.recv_exactly(total)
    assert await c.peer.recv_exactly(1200) == b"before" * 200


@pytest.mark.parametrize("loop_kind", ["fastloop"], indirect=True)
@every_kind
async def test_writelines_of_a_generator_that_ends_the_writing(transport_pair):
    """asyncio from 3.12 on writes, and loses the connection."""
    c = await transport_pair()

    def lines():
        yield b"1"
        c.transport.write_eof()
        yield b"2"

    with pytest.raises(RuntimeError, match=r"after write_eof\(\)"):
        c.transport.writelines(lines())
    assert await c.peer.recv() == b""


@pytest.mark.parametrize("count", [1, 1500])
@every_kind_and_tls
async def test_writelines_more_than_the_kernel_takes(transport_pair, count):
    """More chunks than one sendmsg takes (IOV_MAX), and larger ones."""
    c = await transport_pair()
    c.shrink()
    chunks = [pattern(BULK // count, i) for i in range(count)]
    c.transport.writelines(chunks)
    expected = b"".join(chunks)
    assert await c.peer.recv_exactly(len(expected)) == expected


@every_kind
async def test_write_eof_waits_for_the_write_buffer(transport_pair):
    c = await transport_pair()
    c.shrink()
    data = pattern(BULK)
    c.transport.write(data)
    assert c.transport.get_write_buffer_size() > 0
    c.transport.write_eof()
    c.transport.write_eof()
    assert await c.peer.recv_all() == data
    assert not c.transport.is_closing()


@every_kind
async def test_write_after_write_eof(transport_pair):
    c = await transport_pair()
    c.transport.write_eof()
    with pytest.raises(RuntimeError, match="after write_eof"):
        c.transport.write(b"more")
    with pytest.raises(RuntimeError, match="after write_eof"):
        c.transport.writelines([b"more"])
    with pytest.raises(TypeError):
        c.transport.write("text")
    c.transport.write_eof()
    assert await c.peer.recv() == b""


@every_kind
async def test_writes_after_connection_lost_warn_too(transport_pair, caplog):
    c = await transport_pair()
    with caplog.at_level(logging.WARNING, "asyncio"):
        c.transport.close()
        await c.protocol.wait_lost()
        for _ in range(5):
            c.transport.write(b"dropped")
        with pytest.raises(TypeError):
            c.transport.write("text")
    assert [r.getMessage() for r in caplog.records] == [WARNING]


@every_kind_and_tls
async def test_a_peer_that_resets_while_data_is_buffered(transport_pair, kind):
    c = await transport_pair()
    c.shrink()
    c.transport.pause_reading()
    c.fill()
    while not c.protocol.count("pause"):
        c.transport.write(bytes(65536))
    if kind == "unix":
        c.peer.close()
    else:
        c.peer.reset()
    exc = await c.protocol.wait_lost()
    assert isinstance(exc, (ConnectionResetError, BrokenPipeError))
    assert c.transport.get_write_buffer_size() == 0
    assert c.protocol.names == ["made", "pause", "lost"]
