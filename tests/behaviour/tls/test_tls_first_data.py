"""Data that comes with the end of the handshake waits for its waiter.

The task that awaits start_tls has the new transport only then, so a protocol
that answers earlier answers in plain text on an encrypted connection.  asyncio
delivers such data early; fastloop reads nothing for some iterations.
"""

from __future__ import annotations

import asyncio
import contextlib
import ssl
from concurrent.futures import ThreadPoolExecutor

import pytest
from net_helpers import (
    BufferedRecorder,
    Recorder,
    client_context,
    digest,
    iterations,
    pattern,
    server_context,
    tcp_socketpair,
)
from patience import PATIENCE
from tls_ends import WirePeer, contexts

pytestmark = pytest.mark.native_tls

#: Where the peer has the last word of the handshake.
every_last_word = pytest.mark.parametrize(
    ("side", "version"),
    [("start-tls-client", "1.2"), ("start-tls-server", "1.3")],
)
every_upgrade = pytest.mark.parametrize(
    "side", ["start-tls-client", "start-tls-server"]
)


async def direct(call):
    return await call


async def within_time(call):
    return await asyncio.wait_for(call, 20)


async def in_a_task(call):
    return await asyncio.create_task(call)


async def gathered(call):
    (result,) = await asyncio.gather(call)
    return result


async def shielded(call):
    return await asyncio.shield(call)


async def in_a_group(call):
    async with asyncio.TaskGroup() as group:
        task = group.create_task(call)
    return task.result()


class Upgrade:
    """A plain connection that becomes one of TLS, and its peer.

    `protocol.transport` is what the protocol knows: the plain transport until
    start_tls has returned.
    """

    def __init__(self, loop, protocol, side, version=None, way=direct):
        self.loop, self.protocol, self.side = loop, protocol, side
        self.version, self.way = version, way
        self.secure = None

    async def begin(self):
        near, far = contexts(self.side, self.version)
        a, b = tcp_socketpair()
        a.setblocking(False)
        self.plain, _ = await self.loop.create_connection(
            lambda: self.protocol, sock=a
        )
        server = self.side == "start-tls-server"
        self.peer = WirePeer(b, far, not server)
        self.task = self.loop.create_task(self._upgrade(near, server))
        await iterations(3)  # a server's hello is not for the plain protocol

    async def _upgrade(self, near, server):
        hostname = None if server else "localhost"
        self.secure = await self.way(
            self.loop.start_tls(
                self.plain,
                self.protocol,
                near,
                server_side=server,
                server_hostname=hostname,
            )
        )
        self.protocol.events.append(("upgraded", None))
        self.protocol.transport = self.secure
        return self.secure

    async def last_flight(self):
        """Shake hands but for the peer's last word, which is returned."""
        await self.peer.attempt(self.peer.tls.do_handshake)
        flight = self.peer.outgoing.read()
        assert flight
        return flight

    async def finish(self):
        if not self.protocol.lost:
            self.secure.abort()
            await self.protocol.wait_lost()
        await iterations(3)
        self.peer.close()


async def open_upgrade(*args):
    upgrade = Upgrade(*args)
    await upgrade.begin()
    return upgrade


@every_last_word
@pytest.mark.parametrize(
    ("make", "way"),
    [
        (Recorder, direct),
        (BufferedRecorder, direct),
        (Recorder, within_time),
        (Recorder, in_a_task),
        (Recorder, gathered),
        (Recorder, shielded),
        (Recorder, in_a_group),
    ],
)
async def test_an_answer_to_the_first_data_is_encrypted(
    run, loop, side, version, make, way
):
    """The protocol answers by the transport that it knows."""
    protocol = make(data=lambda p, data: p.transport.write(b"answer"))
    c = await open_upgrade(loop, protocol, side, version, way)
    flight = await c.last_flight()
    await c.peer.send(flight + c.peer.seal(b"early"))
    assert await c.peer.read_exactly(6) == b"answer"
    assert protocol.names == ["made", "upgraded", "data"]
    assert protocol.data == b"early"
    await c.finish()


@every_last_word
async def test_first_data_arrives_whole_and_in_order(run, loop, side, version):
    """Also more than a connection that is paused takes."""
    data = pattern(900_000)
    c = await open_upgrade(loop, Recorder(), side, version)
    flight = await c.last_flight()
    sending = asyncio.ensure_future(c.peer.send(flight + c.peer.seal(data)))
    await c.protocol.wait_data(len(data))
    await sending
    assert digest(c.protocol.data) == digest(data)
    assert c.protocol.names == ["made", "upgraded", "data"]
    await c.finish()


@every_last_word
@pytest.mark.parametrize(
    "end", ["close_notify", "fin", "both", "reset", "a bad record"]
)
async def test_an_end_right_behind_it(run, loop, side, version, end):
    """Comes after it, and takes nothing away: the peer gets the answer, and
    a close_notify for its own.
    """
    protocol = Recorder(data=lambda p, data: p.transport.write(b"answer"))
    c = await open_upgrade(loop, protocol, side, version)
    flight = await c.last_flight() + c.peer.seal(b"early")
    if end in ("close_notify", "both"):
        flight += c.peer.seal_close()
    if end == "a bad record":
        bad = c.peer.seal(b"bad")
        flight += bad[:-1] + bytes([bad[-1] ^ 1])
    await c.peer.send(flight)
    if end == "reset":
        c.peer.reset()
    elif end in ("fin", "both"):
        c.peer.send_eof()
    if end not in ("reset", "a bad record"):
        assert await c.peer.read_exactly(6) == b"answer"
    if end in ("close_notify", "both"):
        assert await c.peer.read() == b""
    exc = await c.protocol.wait_lost()
    assert isinstance(exc, ssl.SSLError) == (end == "a bad record")
    assert c.protocol.data == b"early"
    names = c.protocol.names
    assert names[-1] == "lost"
    assert names[:3] == ["made", "upgraded", "data"]
    await c.finish()


class Odd(BaseException):
    """No Exception, and nothing that ends a program."""


@every_last_word
@pytest.mark.parametrize("kind", [Odd, asyncio.CancelledError])
async def test_exceptions_of_data_received_close_the_connection(
    run, loop, side, version, kind, reports
):
    """As what later data raises does."""

    def fail(*args):
        raise kind("on purpose")

    c = await open_upgrade(loop, Recorder(data=fail), side, version)
    flight = await c.last_flight()
    await c.peer.send(flight + c.peer.seal(b"early"))
    exc = await c.protocol.wait_lost()
    assert isinstance(exc, kind)
    assert [report["exception"] for report in reports] == [exc]
    assert c.protocol.names == ["made", "upgraded", "data", "lost"]
    reports.clear()
    await c.finish()


@every_last_word
async def test_pausing_after_start_tls_delays_the_first_data(
    run, loop, side, version
):
    """By the new transport, as soon as start_tls has returned."""
    c = await open_upgrade(loop, Recorder(), side, version)

    async def upgrade_and_pause():
        secure = await c.task
        secure.pause_reading()

    task = loop.create_task(upgrade_and_pause())
    flight = await c.last_flight()
    await c.peer.send(flight + c.peer.seal(b"early"))
    await task
    await iterations(20)
    assert c.protocol.data == b""
    c.secure.resume_reading()
    assert await c.protocol.wait_data(5) == b"early"
    await c.finish()


@every_upgrade
def test_close_sends_its_close_notify_though_the_run_ends(loop, side):
    """The run ends with the task that has called start_tls and close."""
    near, far = contexts(side)
    server = side == "start-tls-server"
    ours, theirs = (None, "localhost") if server else ("localhost", None)
    a, b = tcp_socketpair()
    b.settimeout(PATIENCE)

    def receive():
        tls = far.wrap_socket(
            b,
            server_side=not server,
            server_hostname=theirs,
            suppress_ragged_eofs=False,
        )
        with tls:
            return [tls.recv(9), tls.recv(9)]

    async def main():
        plain, protocol = await loop.create_connection(Recorder, sock=a)
        secure = await loop.start_tls(
            plain, protocol, near, server_side=server, server_hostname=ours
        )
        secure.write(b"all")
        secure.close()
        return protocol

    with ThreadPoolExecutor(1) as pool:
        received = pool.submit(receive)
        protocol = loop.run_until_complete(main())
        assert received.result() == [b"all", b""]
    loop.run_until_complete(protocol.wait_lost())


@every_last_word
@pytest.mark.parametrize(
    ("method", "behind", "after"),
    [
        ("close", "", 0),
        ("abort", "", 0),
        ("abort", "close_notify", 1),
        ("abort", "fin", 1),
    ],
)
async def test_ending_right_after_start_tls(
    run, loop, side, version, method, behind, after
):
    c = await open_upgrade(loop, Recorder(), side, version)

    async def upgrade_and_end():
        secure = await c.task
        await iterations(after)
        getattr(secure, method)()

    task = loop.create_task(upgrade_and_end())
    flight = await c.last_flight() + c.peer.seal(b"early")
    if behind == "close_notify":
        flight += c.peer.seal_close()
    await c.peer.send(flight)
    if behind == "fin":
        c.peer.send_eof()
    await task
    if method == "close":
        assert await c.peer.read() == b""
        await c.peer.close_notify()
        assert c.protocol.data == b"early"
    assert await c.protocol.wait_lost() is None
    assert c.protocol.data in (b"", b"early")
    assert c.protocol.names.count("lost") == 1
    assert method == "close" or "eof" not in c.protocol.names
    await c.finish()


@every_last_word
@pytest.mark.parametrize(
    ("after", "queued"),
    [(0, 0), (1, 0), (2, 0), (4, 0), (6, 0), (1, 1 << 23), (4, 1 << 23)],
)
async def test_a_cancelled_start_tls(
    run, loop, side, version, after, queued, reports
):
    """Whenever it is cancelled, nothing is delivered behind its end, also
    while the transport below is closing for as long as its bytes wait.
    """
    c = await open_upgrade(loop, Recorder(), side, version)
    flight = await c.last_flight()
    c.plain.write(bytes(queued))
    c.peer.sock.send(flight + c.peer.seal(b"early"))
    await iterations(after)
    cancelled = c.task.cancel()
    with contextlib.suppress(asyncio.CancelledError):
        await c.task
    assert cancelled or c.secure is not None
    if c.secure is not None:
        assert await c.protocol.wait_data(5) == b"early"
        c.secure.abort()
    await iterations(15)
    assert c.plain.is_closing()
    assert c.protocol.count("data") <= (c.secure is not None)
    c.plain.abort()
    await iterations(2)
    c.peer.close()
    assert reports == []


# -- connections that begin with TLS ------------------------------------------


class Notes(asyncio.StreamReader):
    """A reader that notes when it is fed."""

    def __init__(self, log):
        super().__init__()
        self.log = log

    def feed_data(self, data):
        self.log.append("data")
        super().feed_data(data)


@every_last_word
async def test_a_stream_is_upgraded_before_it_is_fed(run, loop, side, version):
    """StreamWriter.start_tls: the reader's transport is the new one then."""
    log = []
    a, b = tcp_socketpair()
    a.setblocking(False)
    ready = loop.create_future()
    reader = Notes(log)
    server = side == "start-tls-server"
    protocol = asyncio.StreamReaderProtocol(
        reader, (lambda r, w: ready.set_result(w)) if server else None
    )
    transport, _ = await loop.create_connection(lambda: protocol, sock=a)
    if server:
        writer = await ready
        context, hostname = server_context(), None
    else:
        writer = asyncio.StreamWriter(transport, protocol, reader, loop)
        context, hostname = client_context(), "localhost"
    peer = WirePeer(b, contexts(side, version)[1], not server)

    async def upgrade():
        await writer.start_tls(context, server_hostname=hostname)
        log.append("upgraded")

    task = loop.create_task(upgrade())
    await peer.attempt(peer.tls.do_handshake)
    await peer.send(
        peer.outgoing.read() + peer.seal(b"early\n") + peer.seal_close()
    )
    await task
    assert await reader.read() == b"early\n"
    assert log == ["upgraded", "data"]
    assert await peer.read() == b""
    peer.close()
    writer.close()
    await writer.wait_closed()


# -- a protocol that was paused before ----------------------------------------


@every_upgrade
async def test_writing_paused_before_start_tls_is_resumed_after_it(
    run, loop, side
):
    """And what it writes then is encrypted: it waits for the transport."""
    protocol = Recorder(resume=lambda p: p.transport.write(b"resumed"))
    a, b = tcp_socketpair()
    a.setblocking(False)
    plain, _ = await loop.create_connection(lambda: protocol, sock=a)
    data = pattern(6_000_000)
    plain.write(data)
    assert protocol.names == ["made", "pause"]
    c = Upgrade(loop, protocol, side)
    c.plain = plain
    near, far = contexts(side)
    server = side == "start-tls-server"
    c.task = loop.create_task(c._upgrade(near, server))
    c.peer = WirePeer(b, far, not server)
    assert digest(await c.peer.recv_exactly(len(data))) == digest(data)
    await c.peer.handshake()
    assert await c.peer.read_exactly(7) == b"resumed"
    assert protocol.names == ["made", "pause", "upgraded", "resume"]
    await c.finish()
