"""Transports that are dropped, and loops that are closed under them.

A loop closed with open transports calls no protocol any more; what was not
closed is warned about when it is collected, and its descriptor closed then.
"""

from __future__ import annotations

import asyncio
import gc
import os
import socket
import struct
import threading
import warnings
import weakref

import pytest
from net_helpers import (
    MIB,
    BufferedRecorder,
    Recorder,
    every_kind,
    iterations,
    link,
    tcp_socketpair,
)
from patience import PATIENCE


def unclosed(caught):
    """How many unclosed transports were warned about; forgets them.

    A recorded warning keeps the transport it is about alive.
    """
    texts = [str(w.message) for w in caught if w.category is ResourceWarning]
    caught.clear()
    return sum(text.startswith("unclosed transport <") for text in texts)


def open_on(loop, protocol):
    """A transport of *loop* and the far end, a blocking socket."""
    near, far = tcp_socketpair()
    near.setblocking(False)
    connect = loop.create_connection(lambda: protocol, sock=near)
    transport, _ = loop.run_until_complete(connect)
    far.settimeout(PATIENCE)
    return transport, far


@pytest.mark.parametrize("make", [Recorder, BufferedRecorder])
@pytest.mark.parametrize("state", ["idle", "paused", "unread", "full"])
def test_loop_closed_with_an_open_transport(loop_factory, state, make):
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        loop = loop_factory()
        protocol = make()
        transport, far = open_on(loop, protocol)
        if state == "paused":
            transport.pause_reading()
        elif state == "unread":
            far.send(b"never read")
        elif state == "full":
            transport.write(bytes(16 * MIB))
        calls = list(protocol.names)
        loop.close()
        assert protocol.names == calls
        ref = weakref.ref(transport)
        protocol.events.clear()
        protocol.transport = None
        del transport, protocol, loop
        gc.collect()
        assert unclosed(caught) == 1
        gc.collect()
        assert ref() is None
    far.close()


def collect_here():
    gc.collect()


def collect_elsewhere():
    """Run the GC in another thread, as it may anywhere."""
    thread = threading.Thread(target=gc.collect)
    thread.start()
    thread.join()


class KeepsOpen(Recorder):
    def __init__(self, losses):
        super().__init__()
        self.losses = losses

    def eof_received(self):
        super().eof_received()
        return True

    def connection_lost(self, exc):
        super().connection_lost(exc)
        self.losses.append(exc)


@pytest.mark.parametrize("collect", [collect_here, collect_elsewhere])
@pytest.mark.parametrize("state", ["paused", "eof", "read again"])
def test_a_transport_that_waits_for_nothing_is_collected(
    loop_factory, state, collect
):
    """Nobody has it and no event can come of it: the peer sees its end."""
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        loop = loop_factory()
        losses = []
        protocol = KeepsOpen(losses)
        transport, far = open_on(loop, protocol)
        if state == "eof":
            far.shutdown(socket.SHUT_WR)
            loop.run_until_complete(protocol.wait_for("eof"))
        else:
            transport.pause_reading()
        if state == "read again":
            transport.resume_reading()
        loop.run_until_complete(asyncio.sleep(0))
        ref = weakref.ref(transport)
        protocol.events.clear()
        protocol.transport = None
        del transport, protocol
        collect()
        loop.run_until_complete(asyncio.sleep(0))
        gc.collect()
        if state == "read again":
            assert unclosed(caught) == 0
            assert ref() is not None
            ref().abort()
            loop.run_until_complete(asyncio.sleep(0))
            assert losses == [None]
        else:
            assert unclosed(caught) == 1
            gc.collect()
            assert ref() is None
            assert losses == []
            assert far.recv(1) == b""
        loop.close()
    far.close()


def test_a_referenced_paused_transport_stays_open(loop_factory):
    loop = loop_factory()
    protocol = Recorder()
    transport, far = open_on(loop, protocol)
    transport.pause_reading()
    gc.collect()
    far.send(b"data")
    transport.resume_reading()
    loop.run_until_complete(protocol.wait_for("data"))
    transport.abort()
    loop.run_until_complete(asyncio.sleep(0))
    loop.close()
    far.close()


def test_a_paused_transport_sends_its_write_buffer_before_it_is_collected(
    loop_factory,
):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ResourceWarning)
        loop = loop_factory()
        protocol = Recorder()
        transport, far = open_on(loop, protocol)
        transport.pause_reading()
        transport.write(bytes(4 * MIB))
        protocol.events.clear()
        protocol.transport = None
        del transport, protocol
        gc.collect()
        far.setblocking(False)

        async def receive_all():
            size = 0
            while data := await loop.sock_recv(far, MIB):
                size += len(data)
                gc.collect()
            return size

        assert loop.run_until_complete(receive_all()) == 4 * MIB
        loop.close()
    far.close()


def test_a_finalizer_may_close_a_transport_that_is_collected(loop_factory):
    class Closes(Recorder):
        def __del__(self):
            self.transport.close()

    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ResourceWarning)
        loop = loop_factory()
        protocol = Closes()
        transport, far = open_on(loop, protocol)
        transport.pause_reading()
        ref = weakref.ref(protocol)
        del transport, protocol
        gc.collect()
        loop.run_until_complete(asyncio.sleep(0))
        loop.run_until_complete(asyncio.sleep(0))
        gc.collect()
        assert ref() is None
        assert far.recv(1) == b""
        loop.close()
    far.close()


def test_a_finalizers_write_in_a_callback_is_sent_whole(loop_factory):
    """The loop keeps what a callback writes until the iteration ends."""
    words = [b"one ", b"two ", b"three"]

    class Leaves(asyncio.Protocol):
        def connection_made(self, transport):
            self.transport = transport
            # Not paused here: asyncio of 3.11.2 would read all the same.
            loop.call_soon(transport.pause_reading)
            made.set()

        def __del__(self):
            for word in words:
                self.transport.write(word)

    async def main():
        server = await loop.create_server(Leaves, "127.0.0.1", 0)
        reader, writer = await asyncio.open_connection(
            *server.sockets[0].getsockname()
        )
        await made.wait()
        await iterations()
        gc.collect()
        received = await asyncio.wait_for(reader.read(), PATIENCE)
        writer.close()
        server.close()
        return received

    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ResourceWarning)
        loop = loop_factory()
        made = asyncio.Event()
        received = loop.run_until_complete(main())
        loop.close()
    # Nothing, where the GC closes the transport first.
    assert received in (b"", b"".join(words))


def test_a_servers_connection_that_its_handler_left_is_closed(loop_factory):
    """A handler that reads to the end and forgets to close the writer."""

    async def handler(reader, writer):
        await reader.read()
        finished.set()

    async def main():
        server = await asyncio.start_server(handler, "127.0.0.1", 0)
        reader, writer = await asyncio.open_connection(
            *server.sockets[0].getsockname()
        )
        writer.write_eof()
        await finished.wait()
        await asyncio.sleep(0)
        gc.collect()
        assert await asyncio.wait_for(reader.read(), PATIENCE) == b""
        writer.close()
        server.close()

    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ResourceWarning)
        loop = loop_factory()
        finished = asyncio.Event()
        loop.run_until_complete(main())
        loop.close()
        gc.collect()


@pytest.mark.parametrize(
    "method, arguments",
    [
        ("close", ()),
        ("abort", ()),
        ("write", (b"data",)),
        ("writelines", ([b"data"],)),
        ("write_eof", ()),
        ("pause_reading", ()),
        ("resume_reading", ()),
        ("is_closing", ()),
        ("is_reading", ()),
        ("get_write_buffer_size", ()),
        ("get_protocol", ()),
        ("__repr__", ()),
        ("get_extra_info", ("peername",)),
    ],
)
def test_methods_after_the_loop_was_closed(loop_factory, method, arguments):
    """They may say that the loop is closed, and crash nothing."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ResourceWarning)
        loop = loop_factory()
        protocol = Recorder()
        transport, far = open_on(loop, protocol)
        loop.close()
        try:
            getattr(transport, method)(*arguments)
        except RuntimeError as exc:
            assert str(exc) == "Event loop is closed"
        assert protocol.names == ["made"]
        protocol.events.clear()
        protocol.transport = None
        del transport
        gc.collect()
    far.close()


@pytest.mark.parametrize("method", ["write", "writelines"])
@pytest.mark.parametrize("end", ["fails", "would block"])
def test_a_write_that_is_not_sent_raises_in_a_closed_loop(
    loop_factory, end, method
):
    """Nothing would report its failure, or send what the kernel refused."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ResourceWarning)
        loop = loop_factory()
        transport, far = open_on(loop, Recorder())
        loop.close()
        data = b"x"
        if end == "fails":
            far.setsockopt(
                socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0)
            )
            far.close()
        else:
            data = bytes(64 << 20)
        with pytest.raises(RuntimeError, match="Event loop is closed"):
            getattr(transport, method)(data if method == "write" else [data])
        ref = weakref.ref(transport)
        del transport
        gc.collect()
        assert ref() is None
    far.close()


@pytest.mark.parametrize("method", ["write", "writelines"])
def test_a_write_behind_others_is_silent_in_a_closed_loop(
    loop_factory, loop_kind, method
):
    if (loop_kind, method) == ("asyncio", "writelines"):
        pytest.skip("from 3.12 on asyncio adds a writer, which raises")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ResourceWarning)
        loop = loop_factory()
        transport, far = open_on(loop, Recorder())
        transport.write(bytes(64 << 20))
        waiting = transport.get_write_buffer_size()
        loop.close()
        getattr(transport, method)(b"abc" if method == "write" else [b"abc"])
        assert transport.get_write_buffer_size() == waiting + 3
        del transport
        gc.collect()
    far.close()


def test_reading_cannot_resume_in_a_closed_loop(loop_factory):
    """Nothing would be delivered: waiting code is to know."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ResourceWarning)
        loop = loop_factory()
        transport, far = open_on(loop, Recorder())
        transport.pause_reading()
        loop.close()
        with pytest.raises(RuntimeError, match="Event loop is closed"):
            transport.resume_reading()
        del transport
        gc.collect()
    far.close()


OPENINGS = {
    "stream": lambda loop, sock: loop._make_socket_transport(sock, Recorder()),
    "datagram": lambda loop, sock: loop._make_datagram_transport(
        sock, asyncio.DatagramProtocol()
    ),
    "read pipe": lambda loop, sock: loop._make_read_pipe_transport(
        sock, Recorder()
    ),
    "write pipe": lambda loop, sock: loop._make_write_pipe_transport(
        sock, Recorder()
    ),
    "listener": lambda loop, sock: loop._start_serving(Recorder, sock),
}


@pytest.mark.parametrize("kind", OPENINGS)
def test_nothing_opens_in_a_closed_loop(loop_factory, loop_kind, kind):
    """asyncio's transport is half made then, and closes the socket."""
    with warnings.catch_warnings(), socket.socket() as sock:
        warnings.simplefilter("ignore", ResourceWarning)
        sock.setblocking(False)
        loop = loop_factory()
        loop.close()
        with pytest.raises(RuntimeError, match="Event loop is closed") as got:
            OPENINGS[kind](loop, sock)
        del got
        gc.collect()
        assert loop_kind == "asyncio" or sock.fileno() >= 0


def test_a_closed_socket_is_not_served_in_a_closed_loop(loop_factory):
    loop = loop_factory()
    loop.close()
    sock = socket.socket()
    sock.close()
    with pytest.raises(RuntimeError, match="Event loop is closed"):
        loop._start_serving(Recorder, sock)


async def open_pipe(loop, kind):
    """A transport of a pipe's end, and the other end."""
    read, write = os.pipe()
    files = open(read, "rb", buffering=0), open(write, "wb", buffering=0)
    if kind == "read pipe":
        transport, _ = await loop.connect_read_pipe(asyncio.Protocol, files[0])
        return transport, files[1]
    transport, _ = await loop.connect_write_pipe(
        asyncio.BaseProtocol, files[1]
    )
    return transport, files[0]


async def open_datagram(loop):
    transport, _ = await loop.create_datagram_endpoint(
        asyncio.DatagramProtocol, local_addr=("127.0.0.1", 0)
    )
    return transport


@pytest.mark.parametrize(
    ("kind", "method", "raises"),
    [
        ("stream", "close", True),
        ("stream", "abort", True),
        ("stream with unsent bytes", "close", False),
        ("stream with unsent bytes", "abort", True),
        ("datagram", "close", True),
        ("datagram", "abort", True),
        ("read pipe", "close", True),
        ("write pipe", "close", True),
        ("write pipe", "abort", True),
    ],
)
def test_a_transport_of_a_closed_loop_is_closing_once_it_was_ended(
    loop_factory, kind, method, raises
):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ResourceWarning)
        loop = loop_factory()
        far = None
        if kind.startswith("stream"):
            transport, far = open_on(loop, Recorder())
            if "unsent" in kind:
                transport.write(bytes(64 * MIB))
        elif kind == "datagram":
            transport = loop.run_until_complete(open_datagram(loop))
        else:
            transport, far = loop.run_until_complete(open_pipe(loop, kind))
        loop.close()
        assert not transport.is_closing()
        if raises:
            with pytest.raises(RuntimeError, match="Event loop is closed"):
                getattr(transport, method)()
        else:
            getattr(transport, method)()
        assert transport.is_closing()
        if method == "abort" and "stream" in kind:
            assert transport.get_write_buffer_size() == 0
        transport.close()
        assert transport.is_closing()
        del transport
        gc.collect()
    if far is not None:
        far.close()


def test_close_then_loop_close_before_connection_lost(loop_factory):
    """connection_lost was due, but no iteration called it."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ResourceWarning)
        loop = loop_factory()
        protocol = Recorder()
        transport, far = open_on(loop, protocol)
        transport.close()
        loop.close()
        assert protocol.names == ["made"]
        protocol.events.clear()
        protocol.transport = None
        del transport
        gc.collect()
    far.close()


def test_an_unreachable_loop_is_collected_with_its_transports(loop_factory):
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        loop = loop_factory()
        protocol = Recorder()
        transport, far = open_on(loop, protocol)
        refs = [weakref.ref(x) for x in (loop, transport, protocol)]
        del loop, transport, protocol
        gc.collect()
        gc.collect()
        texts = [str(w.message) for w in caught]
        assert any(text.startswith("unclosed event loop") for text in texts)
        assert unclosed(caught) == 1
        gc.collect()
        assert [ref() for ref in refs] == [None, None, None]
        assert far.recv(1) == b""
    far.close()


@every_kind
def test_a_closed_transport_is_freed_without_gc(run, kind):
    async def main():
        async with link(kind) as c:
            pass
        ref = weakref.ref(c.transport)
        c.protocol.events.clear()
        c.protocol.transport = None
        c.transport = None
        await iterations(3)
        return ref

    gc.collect()
    gc.disable()
    try:
        ref = run(main())
        if ref() is not None:
            # asyncio ties its transports in a cycle of bound methods.
            assert type(ref()).__module__.startswith("asyncio")
    finally:
        gc.enable()


@pytest.mark.parametrize("ending", ["close", "abort", "peer"])
@every_kind
async def test_nothing_is_left_after_many_connections(kind, ending):
    """Descriptors and objects come back to where they were."""

    async def once():
        async with link(kind) as c:
            c.transport.write(b"some data")
            await c.peer.recv_exactly(9)
            if ending == "peer":
                c.peer.close()
            else:
                getattr(c.transport, ending)()
            await c.protocol.wait_lost()

    for _ in range(5):
        await once()
    await iterations(3)
    gc.collect()
    fds = len(os.listdir("/dev/fd"))
    objects = len(gc.get_objects())
    for _ in range(30):
        await once()
    await iterations(3)
    gc.collect()
    assert len(os.listdir("/dev/fd")) == fds
    assert len(gc.get_objects()) < objects + 30


@pytest.mark.parametrize("kind", ["tcp-server"])
async def test_collecting_in_every_callback(transport_pair, loop):
    """A collection at the worst moments frees nothing that is in use."""

    def collect(protocol, *args):
        gc.collect()

    hooks = dict.fromkeys(("made", "data", "eof", "lost"), collect)
    hooks.update(pause=collect, resume=collect)
    c = await transport_pair(Recorder(**hooks))
    c.shrink()
    c.transport.write(bytes(2 * MIB))
    await c.peer.send(b"data")
    await c.peer.recv_exactly(2 * MIB)
    await c.protocol.wait_data(4)
    c.peer.send_eof()
    assert await c.protocol.wait_lost() is None


async def test_dropping_every_reference_inside_a_callback(loop):
    """The transport's own references keep it alive through the call."""
    done = []

    def drop(protocol, *args):
        protocol.transport = None
        protocol.events.clear()
        gc.collect()
        done.append(args)

    near, far = tcp_socketpair()
    near.setblocking(False)
    await loop.create_connection(
        lambda: Recorder(data=drop, lost=drop), sock=near
    )
    gc.collect()
    far.send(b"data")
    while not done:
        await asyncio.sleep(0)
    far.close()
    while len(done) < 2:
        await asyncio.sleep(0)
    assert done == [(b"data",), (None,)]
    await iterations(2)
