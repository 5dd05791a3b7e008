"""A connection whose protocol or socket raises.

An exception of data_received, eof_received or a buffer method ends its
connection with that exception.  What others raise, and close() and abort(),
the programs of tests/differential compare.
"""

import contextlib
import socket

import pytest
from net_helpers import (
    BufferedRecorder,
    Recorder,
    end,
    every_kind,
    iterations,
)

# --- protocols that raise ---------------------------------------------------


class Broken(Exception):
    """What the protocols here raise."""


def fail(protocol, *args):
    raise Broken(protocol.events[-1][0])


@pytest.mark.parametrize(
    ("make", "event", "call"),
    [
        (Recorder, "data", "data_received"),
        (BufferedRecorder, "data", "buffer_updated"),
        (Recorder, "eof", "eof_received"),
        (BufferedRecorder, "eof", "eof_received"),
    ],
)
@every_kind
async def test_an_exception_of_the_protocol_ends_its_connection(
    transport_pair, reports, make, event, call
):
    c = await transport_pair(make(**{event: fail}))
    if event == "data":
        await c.peer.send(b"data")
    else:
        c.peer.send_eof()
    exc = await c.protocol.wait_lost()
    assert isinstance(exc, Broken)
    assert c.protocol.names == ["made", event, "lost"]
    (report,) = reports
    assert report["message"] == f"Fatal error: protocol.{call}() call failed."
    assert report["exception"] is exc
    assert report["transport"] is c.transport
    assert report["protocol"] is c.protocol
    reports.clear()
    with contextlib.suppress(ConnectionResetError):
        assert await c.peer.recv() == b""


@pytest.mark.reports
@pytest.mark.parametrize("kind", ["unix"])
@pytest.mark.parametrize("call", [None, "_force_close"])
async def test_data_written_before_an_error_is_sent(transport_pair, call):
    """A server's last words, header and body, and then its exception."""

    def answer(protocol, data):
        protocol.transport.write(b"header, ")
        protocol.transport.write(b"body")
        if call is None:
            raise Broken
        getattr(protocol.transport, call)(Broken())

    c = await transport_pair(Recorder(data=answer))
    await c.peer.send(b"request")
    assert await c.peer.recv_all() == b"header, body"


# --- exceptions that leave the loop -----------------------------------------


class Own(socket.socket):
    """Takes attributes, other than socket.socket."""


async def write_while_fileno_fails(loop, fail):
    """Write "x" through a socket whose next fileno() calls fail(sock)."""
    near, far = socket.socketpair()
    sock = Own(fileno=near.detach())
    transport, protocol = await loop.create_connection(Recorder, sock=sock)
    await iterations()
    far.setblocking(False)
    with far:
        sock.fileno = lambda: fail(sock)
        transport.write(b"x")
        assert await loop.sock_recv(far, 9) == b"x"
        await iterations()
        assert not protocol.lost
        vars(sock).pop("fileno", None)
        await end(protocol)


@pytest.mark.parametrize("error", [RecursionError, MemoryError])
async def test_a_fileno_without_room_keeps_the_connection(
    loop, loop_kind, error
):
    """A fileno() that cannot run says nothing about the socket."""
    failed = []

    def no_room(sock):
        del sock.fileno
        failed.append(error())
        raise failed[0]

    await write_while_fileno_fails(loop, no_room)
    assert len(failed) == (loop_kind != "asyncio")
