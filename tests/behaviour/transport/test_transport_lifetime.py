"""Transports that are dropped, and loops that are closed under them.

A loop closed with open transports calls no protocol any more; what was not
closed is warned about when it is collected, and its descriptor closed then.
"""

from __future__ import annotations

import asyncio
import gc
import socket
import threading
import warnings
import weakref

import pytest
from net_helpers import (
    MIB,
    Recorder,
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


def closed_socket(loop, sock):
    sock.close()
    loop._start_serving(Recorder, sock)


@pytest.mark.parametrize("state", ["idle", "paused", "unread", "full"])
def test_loop_closed_with_an_open_transport(loop_factory, state):
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        loop = loop_factory()
        protocol = Recorder()
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


def collect(elsewhere):
    """Run the GC here, or in another thread, as it may anywhere."""
    if not elsewhere:
        gc.collect()
        return
    thread = threading.Thread(target=gc.collect)
    thread.start()
    thread.join()


@pytest.mark.parametrize("elsewhere", [False, True])
@pytest.mark.parametrize("state", ["paused", "eof", "read again"])
def test_a_transport_that_waits_for_nothing_is_collected(
    loop_factory, state, elsewhere
):
    """Nobody has it and no event can come of it: the peer sees its end."""
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        loop = loop_factory()
        losses = []
        protocol = Recorder(
            eof=lambda p: True, lost=lambda p, exc: losses.append(exc)
        )
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
        collect(elsewhere)
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
    "closed listener": closed_socket,
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
        if loop_kind == "fastloop" and kind != "closed listener":
            assert sock.fileno() >= 0


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
