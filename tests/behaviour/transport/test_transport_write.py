"""write, writelines and write_eof of a stream transport.

What arguments they take, what leaves in which order, and what they do when
the connection no longer takes data.
"""

from __future__ import annotations

import array
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


@pytest.mark.parametrize("make", [bytes, bytearray, memoryview])
@every_kind_and_tls
async def test_bytes_like_arguments(transport_pair, make):
    c = await transport_pair()
    assert c.transport.write(make(b"some data")) is None
    c.transport.write(make(b""))
    c.transport.write(b"!")
    assert await c.peer.recv_exactly(10) == b"some data!"


@every_kind_and_tls
async def test_memoryview_of_a_part(transport_pair):
    c = await transport_pair()
    c.transport.write(memoryview(b"0123456789")[3:7])
    assert await c.peer.recv_exactly(4) == b"3456"


@pytest.mark.parametrize(
    "bad",
    ["text", None, 1, 1.5, [1, 2], [b"a"], {}, object(), array.array("b")],
    ids=lambda bad: type(bad).__name__,
)
@every_kind
async def test_other_arguments_are_type_errors(transport_pair, bad):
    c = await transport_pair()
    name = type(bad).__name__
    kinds = "bytes, bytearray, or memoryview" if PY314 else "bytes-like"
    text = f"data argument must be a {kinds} object, not '{name}'"
    with pytest.raises(TypeError, match=f"^{re.escape(text)}$"):
        c.transport.write(bad)
    c.transport.write(b"still works")
    assert await c.peer.recv_exactly(11) == b"still works"


@every_kind
async def test_wrong_number_of_arguments(transport_pair):
    c = await transport_pair()
    for args in ((), (b"a", b"b")):
        with pytest.raises(TypeError):
            c.transport.write(*args)
    with pytest.raises(TypeError):
        c.transport.write(bytes_=b"a")
    await iterations()
    assert c.peer.nothing_to_read()


@every_kind_and_tls
async def test_a_bytearray_may_change_after_write(transport_pair, loop_kind):
    if loop_kind == "asyncio" and PY312:
        pytest.skip("asyncio from 3.12 keeps the caller's own buffer")

    c = await transport_pair()
    c.shrink()
    total = c.fill()
    data = bytearray(b"before" * 100)
    c.transport.write(data)
    c.transport.write(memoryview(data))
    data[:] = b"after!" * 100
    del data[10:]
    await c.peer.recv_exactly(total)
    assert await c.peer.recv_exactly(1200) == b"before" * 200


@every_kind
async def test_the_part_not_sent_of_a_bytearray_may_change(
    transport_pair, loop_kind
):
    if loop_kind == "asyncio" and PY312:
        pytest.skip("asyncio from 3.12 keeps the caller's own buffer")

    c = await transport_pair()
    c.shrink()
    data = bytearray(pattern(BULK))
    expected = bytes(data)
    c.transport.write(data)
    assert c.transport.get_write_buffer_size() > 0
    data[:] = bytes(BULK)
    assert await c.peer.recv_exactly(BULK) == expected


@every_kind_and_tls
async def test_writelines(transport_pair):
    c = await transport_pair()
    parts = [b"a", bytearray(b"bc"), memoryview(b"def"), b"", b"g"]
    assert c.transport.writelines(parts) is None
    assert await c.peer.recv_exactly(7) == b"abcdefg"
    c.transport.writelines((b"h", b"i"))
    assert await c.peer.recv_exactly(2) == b"hi"


@every_kind_and_tls
async def test_writelines_of_a_generator(transport_pair):
    c = await transport_pair()
    c.transport.writelines(b"%d" % i for i in range(10))
    assert await c.peer.recv_exactly(10) == b"0123456789"


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


@pytest.mark.parametrize("nothing", [[], ()], ids=["list", "tuple"])
@every_kind
async def test_writelines_of_nothing(transport_pair, nothing):
    c = await transport_pair()
    c.transport.writelines(nothing)
    await iterations()
    assert c.peer.nothing_to_read()
    c.transport.write(b"z")
    assert await c.peer.recv() == b"z"


@pytest.mark.parametrize(
    "nothing",
    [[], [b""], [b"", b"", b""], iter(())],
    ids=["none", "one", "several", "iterator"],
)
@every_kind_and_tls
async def test_writelines_of_empty_chunks(transport_pair, nothing, loop_kind):
    """Empty chunks must not stall what is written after them."""
    if loop_kind == "asyncio" and PY312:
        pytest.skip("asyncio from 3.12 stalls on, or asserts, empty chunks")

    c = await transport_pair()
    c.transport.writelines(nothing)
    c.transport.write(b"after")
    assert await c.peer.recv_exactly(5) == b"after"
    assert c.transport.get_write_buffer_size() == 0


@pytest.mark.parametrize("bad", [[b"a", "text"], [1], 5, None])
@every_kind
async def test_writelines_of_other_things(transport_pair, bad):
    c = await transport_pair()
    if not bad:
        # asyncio from 3.12 takes any false value for "no data".
        try:
            c.transport.writelines(bad)
        except TypeError:
            pass
    else:
        with pytest.raises(TypeError):
            c.transport.writelines(bad)
    await iterations()
    assert c.peer.nothing_to_read()


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
async def test_write_eof_after_close(transport_pair):
    c = await transport_pair()
    c.transport.close()
    c.transport.write_eof()
    await c.protocol.wait_lost()
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


@every_kind
async def test_write_after_close_while_data_is_buffered_is_sent(
    transport_pair,
):
    """asyncio sends what is written until the buffer has drained."""
    c = await transport_pair()
    c.shrink()
    data = pattern(BULK)
    c.transport.write(data)
    assert c.transport.get_write_buffer_size() > 0
    c.transport.close()
    c.transport.write(b"late")
    assert await c.peer.recv_all() == data + b"late"


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
