"""Reading: data_received, get_buffer and buffer_updated, the end.

Everything that arrives is delivered once, in order.  A BufferedProtocol's
data is read straight into its buffer; get_buffer may do anything, also end
the connection, and its mistakes end it with an error.
"""

import asyncio
import socket
import sys
import time
from functools import partial

import pytest
from net_helpers import (
    KINDS,
    MIB,
    TLS_KINDS,
    BufferedRecorder,
    Peer,
    Recorder,
    every_kind,
    every_kind_and_tls,
    iterations,
    link,
    pattern,
    spin,
)

if sys.platform == "linux":
    import fcntl
    import termios


@every_kind_and_tls
async def test_received_bytes_are_exact_and_independent(transport_pair):
    """No spare room behind the bytes, none of them shared.  Memory that the
    protocol has dropped may be used again, without the hash of before."""
    kept, hashes = [], []

    def keep(_protocol, data):
        hashes.append(hash(data))
        if len(hashes) % 3 > 0:
            kept.append(memoryview(data) if len(hashes) % 3 > 1 else data)

    c = await transport_pair(Recorder(data=keep))
    sent = [b"%04d" % i for i in range(20)]
    for i, data in enumerate(sent):
        await c.peer.send(data)
        await c.protocol.wait_data(4 * (i + 1))
    assert kept == [data for i, data in enumerate(sent, 1) if i % 3]
    assert hashes == [hash(data) for data in sent]
    assert all(sys.getsizeof(k) == sys.getsizeof(sent[0]) for k in kept[::2])


@pytest.mark.parametrize("state", ["open after EOF", "paused", "unread, full"])
@every_kind
async def test_a_connection_that_waits_uses_no_cpu(
    transport_pair, kind, state
):
    """It must not make the poll return at once."""
    c = await transport_pair(Recorder(eof=lambda p: True))
    if state == "open after EOF":
        c.peer.send_eof()
        await c.protocol.wait_for("eof")
    elif state == "unread, full":
        c.transport.pause_reading()
        c.fill()
        await c.peer.send(b"unread")
    else:
        c.transport.pause_reading()
        if kind == "unix":
            c.peer.close()
        else:
            c.peer.reset()
    before = time.thread_time()
    await asyncio.sleep(0.1)
    assert time.thread_time() - before < 0.05


@pytest.mark.parametrize("before", [1, 130_000])
@pytest.mark.parametrize("size", [1, 131_000, 200_000])
async def test_an_event_delivers_all_received_data(loop, size, before):
    near, far = socket.socketpair()
    for end in (near, far):
        end.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, MIB)
    transport, protocol = await loop.create_connection(Recorder, sock=near)
    peer = Peer(far)
    await peer.send(pattern(before))
    await protocol.wait_data(before)
    transport.pause_reading()
    sizes = []
    protocol.data_received = lambda data: sizes.append(len(data))
    assert far.send(pattern(size)) == size
    transport.resume_reading()
    await iterations(5)
    assert sizes == [size]
    transport.close()
    peer.close()


# --- BufferedProtocol -------------------------------------------------------


@pytest.mark.parametrize("kib", [1, 128, 256])
@pytest.mark.parametrize(
    "make",
    [
        Recorder,
        BufferedRecorder,
        partial(Recorder, data=lambda p, data: p.transport.write(b"answer")),
    ],
)
@pytest.mark.skipif(sys.platform != "linux", reason="asks for what arrived")
async def test_a_reset_comes_behind_the_bytes_before_it(loop, kib, make):
    """Also where a recv takes just these bytes and the next one the reset:
    the kernel reports it once."""
    async with link("tcp-server", make()) as c:
        sock = c.transport.get_extra_info("socket")
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1 << 20)
        c.transport.pause_reading()
        await c.peer.send(pattern(kib * 1024))
        unread = bytearray(4)
        await spin(
            lambda: (
                fcntl.ioctl(sock.fileno(), termios.FIONREAD, unread)
                or int.from_bytes(unread, sys.byteorder) == kib * 1024
            )
        )
        c.peer.reset()
        c.transport.resume_reading()
        assert type(await c.protocol.wait_lost()) is ConnectionResetError
        assert c.protocol.data == pattern(kib * 1024)


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
#: asyncio's socket raises TypeError, fastloop what the object raises.
WRONG = (TypeError, BufferError)


@pytest.mark.parametrize(
    "give, error, message",
    [
        (bytearray, RuntimeError(EMPTY), NO_BUFFER),
        (lambda: memoryview(bytearray()), RuntimeError(EMPTY), NO_BUFFER),
        (zero_division, ZeroDivisionError(), NO_BUFFER),
        (lambda: None, TypeError, NO_BUFFER),
        (lambda: 5, TypeError, NO_BUFFER),
        (lambda: b"read-only", WRONG, NOT_WRITABLE),
        (lambda: memoryview(bytearray(10))[::2], WRONG, NOT_WRITABLE),
        (lambda: "text", TypeError, NOT_WRITABLE),
        (lambda: [0] * 10, TypeError, NOT_WRITABLE),
    ],
    ids="empty empty-view raises None int bytes step str list".split(),
)
@every_kind
async def test_wrong_buffers_end_the_connection(
    transport_pair, reports, give, error, message
):
    protocol = BufferedRecorder(get_buffer=lambda p, hint: give())
    c = await transport_pair(protocol)
    await c.peer.send(b"data")
    exc = await c.protocol.wait_lost()
    if isinstance(error, Exception):
        assert str(exc) == str(error)
        error = type(error)
    assert isinstance(exc, error)
    assert c.protocol.names == ["made", "lost"]
    (report,) = reports
    assert report["exception"] is exc
    assert report["transport"] is c.transport
    assert report["message"] == message
    reports.clear()


@every_kind
async def test_pausing_inside_get_buffer(transport_pair):
    """Nothing is lost, and at most the one read goes through."""
    pause = [True]

    def stop(protocol, hint):
        if pause:
            pause.clear()
            protocol.transport.pause_reading()
        return protocol.buffer

    c = await transport_pair(BufferedRecorder(16, get_buffer=stop))
    data = pattern(100)
    await c.peer.send(data)
    await spin(lambda: not pause)
    await iterations(10)
    assert len(c.protocol.data) in (0, 16)
    assert set(c.protocol.hints) == {-1}
    c.transport.resume_reading()
    assert await c.protocol.wait_data(100) == data


#: Those that fastloop reads itself, over TLS as well.
OURS = [kind for kind in KINDS + TLS_KINDS if "no-native" not in kind]


@pytest.mark.parametrize("loop_kind", ["fastloop"], indirect=True)
@pytest.mark.parametrize("make", [Recorder, BufferedRecorder])
@pytest.mark.parametrize("kind", OURS)
async def test_switching_the_protocol_inside_get_buffer(transport_pair, make):
    """The new protocol reads, into a buffer of its own.

    asyncio tells it of what was read into the old one's buffer.
    """
    second = make(eof=lambda p: c.transport.set_protocol(first))

    def switch(protocol, hint):
        if not second.events:
            protocol.transport.set_protocol(second)
        return protocol.buffer

    first = BufferedRecorder(get_buffer=switch)
    c = await transport_pair(first)
    await c.peer.send(b"data")
    await second.wait_data(4)
    await c.peer.send(b"more")
    c.peer.send_eof()
    assert await second.wait_data(8) == b"datamore"
    await first.wait_lost()
    assert (first.data, second.names) == (b"", ["data", "eof"])
