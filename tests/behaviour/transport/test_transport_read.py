"""Reading: data_received, the end of the stream, pausing.

Everything that arrives is delivered once, in order, as bytes; the end of the
stream after it; nothing while reading is paused.
"""

from __future__ import annotations

import asyncio
import socket
import weakref
from asyncio.selector_events import _SelectorTransport

import pytest
from net_helpers import (
    KIB,
    MIB,
    BufferedRecorder,
    Peer,
    Recorder,
    every_kind,
    every_kind_and_tls,
    every_tcp_kind,
    iterations,
    listening_socket,
    pattern,
)

both_protocols = pytest.mark.parametrize("make", [Recorder, BufferedRecorder])


@pytest.mark.parametrize("size", [1, 2, 100, 4096, 65535, 65536, 65537])
@both_protocols
@every_kind_and_tls
async def test_sizes_of_messages(transport_pair, make, size):
    c = await transport_pair(make())
    for seed in range(4):
        data = pattern(size, seed)
        await c.peer.send(data)
        await c.protocol.wait_data(size * (seed + 1))
        assert c.protocol.data[-size:] == data


@both_protocols
@every_kind_and_tls
async def test_a_mebibyte_at_a_time(transport_pair, make):
    c = await transport_pair(make())
    data = pattern(4 * MIB)
    sending = asyncio.create_task(c.peer.send(data))
    assert await c.protocol.wait_data(len(data)) == data
    await sending


@every_kind_and_tls
async def test_received_bytes_are_exact_and_independent(transport_pair):
    """No spare room behind the bytes, none of them shared."""
    import sys

    kept = []
    protocol = Recorder(data=lambda p, data: kept.append(data))
    c = await transport_pair(protocol)
    for i in range(20):
        await c.peer.send(b"%04d" % i)
        await c.protocol.wait_data(4 * (i + 1))
    assert b"".join(kept) == b"".join(b"%04d" % i for i in range(20))
    empty = sys.getsizeof(b"")
    assert all(sys.getsizeof(k) == empty + len(k) for k in kept)


@pytest.mark.parametrize("answer", [None, False, 0])
@both_protocols
@every_kind_and_tls
async def test_eof_closes_by_default(transport_pair, make, answer):
    c = await transport_pair(make(eof=lambda p: answer))
    await c.peer.send(b"last")
    c.peer.send_eof()
    assert await c.protocol.wait_lost() is None
    assert c.protocol.names == ["made", "data", "eof", "lost"]
    assert c.protocol.data == b"last"
    assert c.transport.is_closing()
    assert await c.peer.recv() == b""


@both_protocols
@every_kind
async def test_eof_after_a_large_read_is_no_data(transport_pair, make):
    c = await transport_pair(make())
    data = pattern(64 * KIB)
    await c.peer.send(data)
    assert await c.protocol.wait_data(len(data)) == data
    c.peer.send_eof()
    assert await c.protocol.wait_lost() is None
    assert c.protocol.names == ["made", "data", "eof", "lost"]


@pytest.mark.parametrize("answer", [True, 1, "yes"])
@both_protocols
@every_kind
async def test_eof_received_returning_true_leaves_the_write_side_open(
    transport_pair, make, answer
):
    c = await transport_pair(make(eof=lambda p: answer))
    c.peer.send_eof()
    await c.protocol.wait_for("eof")
    await iterations()
    assert not c.transport.is_closing()
    c.transport.write(b"still written")
    assert await c.peer.recv_exactly(13) == b"still written"
    c.transport.close()
    assert await c.protocol.wait_lost() is None
    assert c.protocol.names == ["made", "eof", "lost"]


@both_protocols
@every_kind
async def test_eof_is_delivered_again_when_reading_resumes(
    transport_pair, make
):
    c = await transport_pair(make(eof=lambda p: True))
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


@both_protocols
@every_kind
async def test_the_answer_to_eof_is_released(transport_pair, make):
    answers = []

    def answer(protocol):
        made = {"kept open"}
        answers.append(weakref.ref(made))
        return made

    c = await transport_pair(make(eof=answer))
    c.peer.send_eof()
    await c.protocol.wait_for("eof")
    await iterations(1)
    assert answers[0]() is None


@every_kind
async def test_open_after_eof_uses_no_cpu(transport_pair, loop):
    """A connection at its end must not make the poll return at once."""
    import time

    c = await transport_pair(Recorder(eof=lambda p: True))
    c.peer.send_eof()
    await c.protocol.wait_for("eof")
    before = time.thread_time()
    alarm = loop.create_future()
    loop.call_later(0.1, alarm.set_result, None)
    await alarm
    assert time.thread_time() - before < 0.05


@every_kind_and_tls
async def test_large_write_during_eof_received_is_sent_whole(transport_pair):
    data = pattern(4 * MIB)
    protocol = Recorder(eof=lambda p: p.transport.write(data))
    c = await transport_pair(protocol)
    c.shrink()
    c.peer.send_eof()
    assert await c.peer.recv_all() == data
    assert await c.protocol.wait_lost() is None


@every_kind
async def test_eof_after_write_eof_ends_the_connection(transport_pair):
    c = await transport_pair()
    c.transport.write_eof()
    assert await c.peer.recv() == b""
    c.peer.close()
    assert await c.protocol.wait_lost() is None
    assert c.protocol.names == ["made", "eof", "lost"]


@both_protocols
@every_kind_and_tls
async def test_paused_reading_delays_data_and_eof(transport_pair, make):
    c = await transport_pair(make())
    assert c.transport.is_reading()
    assert c.transport.pause_reading() is None
    assert not c.transport.is_reading()
    await c.peer.send(b"held")
    c.peer.send_eof()
    await iterations(10)
    assert c.protocol.names == ["made"]
    assert c.transport.resume_reading() is None
    assert c.transport.is_reading()
    assert await c.protocol.wait_lost() is None
    assert c.protocol.names == ["made", "data", "eof", "lost"]
    assert c.protocol.data == b"held"


@every_kind_and_tls
async def test_pause_and_resume_may_be_repeated(transport_pair):
    c = await transport_pair()
    c.transport.resume_reading()
    c.transport.pause_reading()
    c.transport.pause_reading()
    await c.peer.send(b"a")
    await iterations(10)
    assert c.protocol.names == ["made"]
    c.transport.resume_reading()
    c.transport.resume_reading()
    assert await c.protocol.wait_data(1) == b"a"
    c.transport.pause_reading()
    c.transport.resume_reading()
    await c.peer.send(b"b")
    assert await c.protocol.wait_data(2) == b"ab"


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


@both_protocols
@every_kind_and_tls
async def test_pause_and_resume_inside_the_callback(transport_pair, make):
    def toggle(protocol, data):
        protocol.transport.pause_reading()
        protocol.transport.resume_reading()

    c = await transport_pair(make(data=toggle))
    data = pattern(MIB)
    sending = asyncio.create_task(c.peer.send(data))
    assert await c.protocol.wait_data(MIB) == data
    await sending


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


@every_kind
async def test_pause_and_resume_of_a_closing_transport(transport_pair):
    c = await transport_pair()
    c.transport.close()
    assert not c.transport.is_reading()
    c.transport.pause_reading()
    c.transport.resume_reading()
    assert not c.transport.is_reading()
    await c.protocol.wait_lost()
    c.transport.pause_reading()
    c.transport.resume_reading()
    assert not c.transport.is_reading()
    assert c.protocol.names == ["made", "lost"]


@every_kind
async def test_nothing_is_delivered_after_close(transport_pair):
    c = await transport_pair()
    c.shrink()
    c.fill()
    c.transport.close()
    await c.peer.send(b"too late")
    await iterations(10)
    assert c.protocol.count("data") == 0
    assert not c.protocol.lost


@every_kind
async def test_closing_inside_data_received_drops_the_rest(transport_pair):
    protocol = Recorder(data=lambda p, d: p.transport.close())
    c = await transport_pair(protocol)
    c.transport.pause_reading()
    await c.peer.send(bytes(150 * KIB))
    c.peer.send_eof()
    c.transport.resume_reading()
    assert await c.protocol.wait_lost() is None
    assert c.protocol.count("data") == 1
    assert c.protocol.names == ["made", "data", "lost"]


@every_tcp_kind
async def test_reset_by_the_peer(transport_pair):
    c = await transport_pair()
    c.peer.reset()
    exc = await c.protocol.wait_lost()
    assert type(exc) is ConnectionResetError
    assert exc.errno == 104 or exc.errno == 54
    assert c.protocol.names == ["made", "lost"]
    assert c.transport.is_closing()


@pytest.mark.parametrize("size", [6, 64 * KIB])
@both_protocols
@every_tcp_kind
async def test_data_before_a_reset_or_the_reset_alone(
    transport_pair, make, size
):
    """The kernel drops what was not read yet: never an invented byte."""
    c = await transport_pair(make())
    data = pattern(size)
    await c.peer.send(data)
    assert await c.protocol.wait_data(size) == data
    c.peer.reset()
    assert type(await c.protocol.wait_lost()) is ConnectionResetError
    assert c.protocol.names == ["made", "data", "lost"]


@every_tcp_kind
async def test_reset_while_reading_is_paused(transport_pair):
    """Nobody looks at the socket; the reset is seen after resuming."""
    c = await transport_pair()
    c.transport.pause_reading()
    c.peer.reset()
    await iterations(10)
    if not c.protocol.lost:
        assert c.protocol.names == ["made"]
        c.transport.resume_reading()
    assert type(await c.protocol.wait_lost()) is ConnectionResetError
    assert c.protocol.names == ["made", "lost"]


@every_kind
async def test_peer_closed_while_reading_is_paused_uses_no_cpu(
    transport_pair, loop, kind
):
    import time

    c = await transport_pair()
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


@every_tcp_kind
async def test_urgent_data_does_not_disturb(transport_pair):
    c = await transport_pair()
    await c.peer.send(b"a")
    c.peer.sock.send(b"!", socket.MSG_OOB)
    await c.peer.send(b"b")
    assert await c.protocol.wait_data(2) == b"ab"


@pytest.mark.parametrize("before", [1, 20_000, 130_000])
@pytest.mark.parametrize("size", [50_000, 180_000])
@pytest.mark.parametrize("pauses", [False, True])
async def test_an_answer_to_the_first_part_of_an_upload_arrives_whole(
    loop, size, pauses, before
):
    """Bytes that a closed connection leaves in the kernel would reset it."""
    answer = pattern(MIB)

    class Refusing(asyncio.Protocol):
        got_bytes = 0

        def connection_made(self, transport):
            self.transport = transport

        def data_received(self, data):
            self.got_bytes += len(data)
            if self.got_bytes == before:
                self.transport.pause_reading()
                begun.set_result(self.transport)
            elif pauses:
                self.transport.pause_reading()
                loop.call_soon(self.refuse)
            elif not self.transport.is_closing():
                self.refuse()

        def refuse(self):
            self.transport.write(answer)
            self.transport.close()

    begun = loop.create_future()
    # Before it listens: a connection has the buffers of its listener.
    listener = listening_socket()
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, MIB)
    with socket.socket() as client:
        client.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, MIB)
        client.connect(listener.getsockname())
        peer = Peer(client)
        server = await loop.create_server(Refusing, sock=listener)
        await peer.send(pattern(before))
        transport = await begun
        assert client.send(pattern(size)) == size
        transport.resume_reading()
        assert await peer.recv_all() == answer
        server.close()


@pytest.mark.parametrize("before", [1, 20_000, 130_000])
@pytest.mark.parametrize("size", [1, 100_000, 131_000, 200_000])
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
