"""Reading: data_received, the end of the stream, pausing.

Everything that arrives is delivered once, in order, as bytes; the end of the
stream after it; nothing while reading is paused.
"""

from __future__ import annotations

import asyncio
import socket
import sys
import time
from asyncio.selector_events import _SelectorTransport

import pytest
from net_helpers import (
    MIB,
    BufferedRecorder,
    Peer,
    Recorder,
    every_kind,
    every_kind_and_tls,
    iterations,
    pattern,
)

both_protocols = pytest.mark.parametrize("make", [Recorder, BufferedRecorder])


@both_protocols
@every_kind_and_tls
async def test_sizes_of_messages(transport_pair, make):
    c = await transport_pair(make())
    total = 0
    for size in [1, 2, 100, 4096, 65535, 65536, 65537, 4 * MIB]:
        for seed in range(3):
            data = pattern(size, seed)
            sending = asyncio.create_task(c.peer.send(data))
            total += size
            await c.protocol.wait_data(total)
            assert c.protocol.data[-size:] == data
            await sending


@every_kind_and_tls
async def test_received_bytes_are_exact_and_independent(transport_pair):
    """No spare room behind the bytes, none of them shared."""
    kept = []
    protocol = Recorder(data=lambda p, data: kept.append(data))
    c = await transport_pair(protocol)
    for i in range(20):
        await c.peer.send(b"%04d" % i)
        await c.protocol.wait_data(4 * (i + 1))
    assert b"".join(kept) == b"".join(b"%04d" % i for i in range(20))
    empty = sys.getsizeof(b"")
    assert all(sys.getsizeof(k) == empty + len(k) for k in kept)


@pytest.mark.parametrize("answer", [None, 0])
@every_kind_and_tls
async def test_eof_closes_by_default(transport_pair, answer):
    c = await transport_pair(Recorder(eof=lambda p: answer))
    await c.peer.send(b"last")
    c.peer.send_eof()
    assert await c.protocol.wait_lost() is None
    assert c.protocol.names == ["made", "data", "eof", "lost"]
    assert c.protocol.data == b"last"
    assert c.transport.is_closing()
    assert await c.peer.recv() == b""


@every_kind
async def test_eof_is_delivered_again_when_reading_resumes(transport_pair):
    c = await transport_pair(Recorder(eof=lambda p: True))
    c.peer.send_eof()
    await c.protocol.wait_for("eof")
    await iterations()
    for _ in range(2):
        await iterations(30)
        c.transport.pause_reading()
        c.transport.resume_reading()
        await iterations(3)
    assert c.protocol.names == ["made", "eof", "eof", "eof"]
    c.protocol.faults.clear()  # it expects one
    c.transport.abort()
    assert await c.protocol.wait_lost() is None


@every_kind_and_tls
async def test_large_write_during_eof_received_is_sent_whole(transport_pair):
    data = pattern(4 * MIB)
    protocol = Recorder(eof=lambda p: p.transport.write(data))
    c = await transport_pair(protocol)
    c.shrink()
    c.peer.send_eof()
    assert await c.peer.recv_all() == data
    assert await c.protocol.wait_lost() is None


@both_protocols
@every_kind_and_tls
async def test_pausing_inside_the_callback_stops_at_once(transport_pair, make):
    """Not one more call, however much has already arrived."""
    protocol = make(data=lambda p, d: p.transport.pause_reading())
    c = await transport_pair(protocol)
    data = pattern(MIB)
    sending = asyncio.create_task(c.peer.send(data))
    for count in range(1, 5):
        await c.protocol.wait_for("data", count)
        await iterations(5)
        assert c.protocol.count("data") == count
        c.transport.resume_reading()
    while len(c.protocol.data) < MIB:
        await c.protocol.wait_for("data", c.protocol.count("data"))
        c.transport.resume_reading()
        await iterations(1)
    await sending
    assert c.protocol.data == data


@every_kind
async def test_pausing_in_connection_made(transport_pair, loop_kind):
    # Early releases of 3.11 begin to read whatever the protocol has said.
    begins = _SelectorTransport._add_reader
    if loop_kind == "asyncio" and "is_reading" not in begins.__code__.co_names:
        pytest.skip("this asyncio forgets a pause in connection_made")

    protocol = Recorder(made=lambda p: p.transport.pause_reading())
    c = await transport_pair(protocol)
    await c.peer.send(b"early")
    await iterations(10)
    assert c.protocol.names == ["made"]
    assert not c.transport.is_reading()
    c.transport.resume_reading()
    assert await c.protocol.wait_data(5) == b"early"


@pytest.mark.parametrize("state", ["open after EOF", "paused"])
@every_kind
async def test_a_connection_whose_peer_has_ended_uses_no_cpu(
    transport_pair, loop, kind, state
):
    """It must not make the poll return at once."""
    c = await transport_pair(Recorder(eof=lambda p: True))
    if state == "open after EOF":
        c.peer.send_eof()
        await c.protocol.wait_for("eof")
    else:
        c.transport.pause_reading()
        if kind == "unix":
            c.peer.close()
        else:
            c.peer.reset()
    before = time.thread_time()
    alarm = loop.create_future()
    loop.call_later(0.1, alarm.set_result, None)
    await alarm
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
