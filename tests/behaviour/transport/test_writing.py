"""write, writelines, write_eof and the limits of a stream transport.

pause_writing comes from inside the write that crosses the high mark,
resume_writing when the buffer has drained to the low one.
"""

import array
import logging
import re
import sys

import pytest
from net_helpers import (
    KIB,
    MIB,
    PY312,
    PY314,
    PY315,
    every_kind,
    every_kind_and_tls,
    iterations,
    pattern,
)

BULK = 2 * MIB
DEFAULT = (16 * KIB, 64 * KIB)
NO_SENSE = r"high \({}\) must be >= low \({}\) must be >= 0"
LIMITS = [  # the arguments, the limits or the error
    ({}, DEFAULT),
    ({"high": 1000}, (250, 1000)),
    ({"low": 1000}, (1000, 4000)),
    ({"high": 0}, (0, 0)),
    ({"low": 0}, (0, 0)),
    ({"high": 500, "low": 500}, (500, 500)),
    ({"high": 3}, (0, 3)),
    ({"high": None, "low": None}, DEFAULT),
    ({"high": 1 << 40, "low": 1 << 39}, (1 << 39, 1 << 40)),
    ({"high": 2e6}, (500_000, 2_000_000)),
    ({"high": 10, "low": 11}, NO_SENSE.format(10, 11)),
    ({"high": -1}, NO_SENSE.format(-1, -1)),
    ({"high": -5}, NO_SENSE.format(-5, -2)),
    ({"low": -1}, NO_SENSE.format(-4, -1)),
    ({"high": 5, "low": -1}, NO_SENSE.format(5, -1)),
    ({"high": -0.5}, "must be >= low"),
    ({"low": -(2**63)}, "must be >= low"),
]


@pytest.mark.parametrize("kind", ["unix"])
async def test_write_limits_are_taken_or_refused(transport_pair):
    c = await transport_pair()
    set_limits = c.transport.set_write_buffer_limits
    for arguments, expected in LIMITS:
        set_limits()
        if isinstance(expected, str):
            with pytest.raises(ValueError, match=expected):
                set_limits(**arguments)
            expected = DEFAULT
        else:
            assert set_limits(**arguments) is None
        assert c.transport.get_write_buffer_limits() == expected, arguments


@every_kind
async def test_exactly_the_high_mark_does_not_pause(transport_pair):
    c = await transport_pair()
    c.shrink()
    high = 300_000
    c.transport.set_write_buffer_limits(high=high, low=high)
    total = c.fill(b"x" * 30000)
    room = high - c.transport.get_write_buffer_size()
    c.transport.write(b"y" * room)
    assert c.transport.get_write_buffer_size() == high
    assert c.protocol.count("pause") == 0
    c.transport.write(b"z")
    assert c.protocol.count("pause") == 1
    await c.peer.recv_exactly(total + room + 1)
    await c.protocol.wait_for("resume")


@every_kind_and_tls
async def test_zero_high_mark_pauses_with_the_first_buffered_byte(
    transport_pair, loop_kind, kind
):
    theirs = loop_kind == "asyncio" or kind.endswith("no-native")
    if theirs and kind.startswith("tls"):
        pytest.skip("asyncio's TLS pauses with nothing to send")
    c = await transport_pair()
    c.shrink()
    c.transport.set_write_buffer_limits(high=0)
    c.transport.write(b"small")
    # The kernel takes it, or will with the callback.
    assert c.transport.get_write_buffer_size() == 0
    assert c.protocol.count("pause") == 0
    total = c.fill()
    assert c.protocol.count("pause") == 1
    await c.peer.recv_exactly(total + 5)
    await c.protocol.wait_for("resume")
    assert c.transport.get_write_buffer_size() == 0


@every_kind
async def test_writelines_pauses_sooner_or_later(transport_pair, loop_kind):
    """asyncio's writelines from 3.12 never looks at the high mark."""
    c = await transport_pair()
    c.shrink()
    c.transport.writelines([pattern(MIB), b"end"])
    if loop_kind == "fastloop":
        assert c.protocol.count("pause") == 1
    c.transport.write(b"!")
    assert c.protocol.count("pause") == 1
    await c.peer.recv_exactly(MIB + 4)
    await c.protocol.wait_for("resume")


@every_kind
async def test_a_lost_connection_frees_its_write_buffer(transport_pair):
    """Also while the transport itself is referenced."""
    c = await transport_pair()
    c.fill()
    data = pattern(MIB)
    before = sys.getrefcount(data)
    c.transport.write(data)
    c.transport.abort()
    await c.protocol.wait_lost()
    await iterations(2)
    assert sys.getrefcount(data) == before


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
#: Of which asyncio takes the items for bytes, or which end its transport; over
#: TLS some raise, as on asyncio.
VIEWS = [
    (memoryview(b"0123456789")[::2], b"02468"),
    (memoryview(b"012")[::-1], b"210"),
    (memoryview(b"x").cast("B", shape=[]), b"x"),
    (memoryview(b"012345").cast("B", shape=[2, 3]), b"012345"),
    (memoryview(b"01234567").cast("I"), b"01234567"),
]


@every_kind_and_tls
async def test_what_is_written_arrives(transport_pair, loop_kind, kind):
    c = await transport_pair()
    for method, data, expected in WRITTEN:
        assert getattr(c.transport, method)(data) is None
        assert await c.peer.recv_exactly(len(expected)) == expected
    c.transport.writelines(b"%d" % number for number in range(3))
    assert await c.peer.recv_exactly(3) == b"012"
    if loop_kind == "asyncio":
        return  # from 3.12 on it stalls on empty pieces
    for nothing in EMPTY:
        c.transport.writelines(nothing)
        c.transport.write(b"after")
        assert await c.peer.recv_exactly(5) == b"after"
        assert c.transport.get_write_buffer_size() == 0
    for view, expected in [] if kind.startswith("tls") else VIEWS:
        c.transport.write(view)
        c.transport.writelines([view])
        assert await c.peer.recv_exactly(2 * len(expected)) == expected * 2


REFUSED = ["text", None, 1, 1.5, [b"a"], {}, object(), array.array("b")]
KINDS = "bytes, bytearray, or memoryview" if PY314 else "bytes-like"


@every_kind
async def test_refused_arguments(transport_pair, loop_kind):
    """Other methods and arguments are odd_calls.py's."""
    c = await transport_pair()
    for bad in REFUSED:
        text = f"data argument must be a {KINDS} object, not "
        with pytest.raises(TypeError, match=f"^{re.escape(text)}") as caught:
            c.transport.write(bad)
        assert str(caught.value).endswith(f"'{type(bad).__name__}'")
    if loop_kind == "asyncio" and PY315:
        return  # it keeps the items before the refused one, and then stalls
    with pytest.raises(TypeError):
        c.transport.writelines([b"a", "text"])
    await iterations()
    with pytest.raises(BlockingIOError):
        c.peer.sock.recv(1)
    c.transport.write(b"still works")
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
    texts = [record.getMessage() for record in caplog.records]
    assert texts == ["socket.send() raised exception."]
