"""Transports that are dropped, and loops that are closed under them.

A loop closed with open transports calls no protocol any more; what was not
closed is warned about when it is collected, and its descriptor closed then.
"""

import asyncio
import contextlib
import gc
import socket
import warnings
import weakref
from functools import partial

import pytest
from net_helpers import MIB, Peer, Recorder, open_on_pair
from patience import PATIENCE

closed = partial(pytest.raises, RuntimeError, match="Event loop is closed")
fine = contextlib.nullcontext


@pytest.fixture
def warned():
    """Return what tells how many transports were warned about so far.

    It forgets them: a recorded warning keeps the transport it is about alive.
    """

    def unclosed():
        found = [
            one
            for one in caught
            if str(one.message).startswith("unclosed transport <")
        ]
        caught.clear()
        for one in found:  # tracemalloc looks at the source
            assert type(one.source).__name__ in str(one.message)
            assert one.category is ResourceWarning
        return len(found)

    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always", ResourceWarning)
        yield unclosed


@pytest.fixture
def opened(warned):
    """Return what opens a transport of a loop: it and the far end."""
    with contextlib.ExitStack() as stack:

        def open_one(loop, kind="stream", **hooks):
            opening, _, far = open_on_pair(
                loop, kind, lambda: Recorder(**hooks)
            )
            far.settimeout(PATIENCE)
            stack.enter_context(far)
            return loop.run_until_complete(opening)[0], far

        yield open_one
    gc.collect()


def forget(transport):
    """Let the protocol have no reference to its transport."""
    protocol = transport.get_protocol()
    protocol.events.clear()
    protocol.transport = None
    return weakref.ref(transport)


#: What is done to a transport, by the state that it is in then.
STATES = {
    "idle": lambda transport, far: None,
    "paused": lambda transport, far: transport.pause_reading(),
    "unread": lambda transport, far: far.send(b"never read"),
    "full": lambda transport, far: transport.write(bytes(64 * MIB)),
    "closing": lambda transport, far: transport.close(),
    "hung up": lambda transport, far: far.close(),
}


# --- dropped ----------------------------------------------------------------


def test_a_paused_transport_sends_its_write_buffer_before_it_is_collected(
    loop_factory, opened
):
    loop = loop_factory()
    transport, far = opened(loop)
    transport.pause_reading()
    transport.write(bytes(4 * MIB))
    forget(transport)
    del transport
    gc.collect()

    async def receive_all():
        peer, size = Peer(far), 0
        while data := await peer.recv(MIB):
            size += len(data)
            gc.collect()
        return size

    assert loop.run_until_complete(receive_all()) == 4 * MIB
    loop.close()


# --- a closed loop ----------------------------------------------------------


@pytest.mark.parametrize(
    ("kind", "state"),
    [
        *(("stream", state) for state in ("idle", "paused", "unread", "full")),
        *((kind, "idle") for kind in ("datagrams", "read pipe", "write pipe")),
    ],
)
def test_loop_closed_with_an_open_transport(
    loop_factory, opened, warned, kind, state
):
    loop = loop_factory()
    transport, far = opened(loop, kind)
    STATES[state](transport, far)
    protocol = transport.get_protocol()
    calls = list(protocol.names)
    loop.close()
    assert protocol.names == calls
    ref = forget(transport)
    del transport, protocol, loop
    gc.collect()
    assert warned() == 1
    gc.collect()
    assert ref() is None


CALLS = [
    # the kind, its state, the call, what it raises, whether it is closing then
    ("stream", "idle", "close", (), closed, True),
    ("stream", "idle", "abort", (), closed, True),
    ("stream", "full", "close", (), fine, True),
    ("stream", "full", "abort", (), closed, True),
    ("datagrams", "idle", "close", (), closed, True),
    ("datagrams", "idle", "abort", (), closed, True),
    ("read pipe", "idle", "close", (), closed, True),
    ("write pipe", "idle", "close", (), closed, True),
    ("write pipe", "idle", "abort", (), closed, True),
    ("stream", "paused", "resume_reading", (), closed, False),
    ("stream", "idle", "write", (bytes(64 * MIB),), closed, False),
    ("stream", "idle", "writelines", ([bytes(64 * MIB)],), closed, False),
    ("stream", "full", "write", (b"abc",), fine, False),
    ("stream", "closing", "write", (b"abc",), fine, True),
    ("stream", "hung up", "write", (b"x",), closed, True),
    ("stream", "hung up", "writelines", ([b"x"],), closed, True),
    ("stream", "idle", "write", (b"data",), fine, False),
    ("stream", "idle", "is_reading", (), fine, False),
    ("stream", "idle", "__repr__", (), fine, False),
    ("stream", "idle", "get_extra_info", ("peername",), fine, False),
    ("stream", "idle", "get_write_buffer_size", (), fine, False),
]


@pytest.mark.parametrize(
    ("kind", "state", "method", "args", "raises", "closing"), CALLS
)
def test_calls_in_a_closed_loop(
    loop_factory, opened, kind, state, method, args, raises, closing
):
    loop = loop_factory()
    transport, far = opened(loop, kind)
    STATES[state](transport, far)
    loop.close()
    with raises():
        getattr(transport, method)(*args)
    assert transport.is_closing() == closing
    if kind == "stream":
        assert transport.get_protocol().names == ["made"] + (
            ["pause"] if state == "full" else []
        )
        if method == "abort":
            assert transport.get_write_buffer_size() == 0


def closed_socket(loop, sock):
    sock.close()
    loop._start_serving(Recorder, sock)


OPENINGS = {
    "stream": lambda loop, sock: loop._make_socket_transport(sock, Recorder()),
    "datagram": lambda loop, sock: loop._make_datagram_transport(
        sock, asyncio.DatagramProtocol()
    ),
    "listener": lambda loop, sock: loop._start_serving(Recorder, sock),
    "closed listener": closed_socket,
}


@pytest.mark.parametrize("kind", OPENINGS)
def test_nothing_opens_in_a_closed_loop(loop_factory, loop_kind, warned, kind):
    """asyncio's transport is half made then, and closes the socket."""
    with socket.socket() as sock:
        sock.setblocking(False)
        loop = loop_factory()
        loop.close()
        with closed() as got:
            OPENINGS[kind](loop, sock)
        del got
        gc.collect()
        if loop_kind == "fastloop" and kind != "closed listener":
            assert sock.fileno() >= 0
