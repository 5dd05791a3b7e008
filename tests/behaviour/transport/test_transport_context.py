"""In which contextvars context a transport calls its protocol.

The context is a copy of the one the connection was made in (a client's) or
its server was (a server's); connections share nothing with each other.
"""

from __future__ import annotations

import asyncio
import contextlib
import contextvars
import gc
import os
import weakref

import pytest
from datagram_helpers import Datagrams
from net_helpers import (
    BufferedRecorder,
    Recorder,
    client_context,
    every_kind,
    iterations,
    server_context,
    spin,
)

var = contextvars.ContextVar("var", default="default")


@pytest.mark.parametrize("make", [Recorder, BufferedRecorder])
@every_kind
async def test_callbacks_run_in_the_context_of_the_maker(transport_pair, make):
    """Each sees what the one before has set."""
    seen = []

    def note(protocol, *args):
        seen.append(var.get())
        var.set(f"after {len(seen)}")

    var.set("maker")
    protocol = make(made=note, data=note, eof=note, lost=note)
    c = await transport_pair(protocol)
    var.set("changed")
    await c.peer.send(b"data")
    await c.protocol.wait_data(4)
    c.peer.send_eof()
    await c.protocol.wait_lost()
    # asyncio's connection_made has a copy of its own.
    assert seen.pop(1) in ("maker", "after 1")
    assert seen == ["maker", "after 2", "after 3"]
    assert var.get() == "changed"


async def test_connections_of_one_server_share_nothing(host):
    """Also when one accept takes them all."""

    def change(protocol, *args):
        assert var.get() == "of the server"
        if protocol.names[-1] == "data":
            var.set("of a connection")

    def factory():
        assert var.get() == "of the server"
        return Recorder(made=change, data=change)

    host.made.factory = factory
    token = var.set("of the server")
    await host.serve()
    var.reset(token)
    peers = [host.plain() for _ in range(5)]
    for peer in peers:
        peer.send(b"data")
    await spin(lambda: len(host.made) == 5)
    for protocol in host.made:
        await protocol.wait_data(4)
    for peer in peers:
        peer.close()
    for protocol in host.made:
        await protocol.wait_lost()
        assert protocol.names == ["made", "data", "eof", "lost"]


async def served(factory, **how):
    """A connection of the loop to itself, both ends with the protocol."""
    loop = asyncio.get_running_loop()
    server_ssl = server_context() if how else None
    server = await loop.create_server(factory, "127.0.0.1", 0, ssl=server_ssl)
    await loop.create_connection(
        factory, *server.sockets[0].getsockname(), **how
    )
    server.close()


async def tcp(factory):
    await served(factory)


async def tls(factory):
    await served(factory, ssl=client_context(), server_hostname="localhost")


async def datagrams(factory):
    loop = asyncio.get_running_loop()
    await loop.create_datagram_endpoint(factory, ("127.0.0.1", 0))


async def pipes(factory):
    loop = asyncio.get_running_loop()
    read, write = os.pipe()
    await loop.connect_read_pipe(factory, os.fdopen(read, "rb", 0))
    await loop.connect_write_pipe(factory, os.fdopen(write, "wb", 0))


@contextlib.contextmanager
def no_collection():
    gc.collect()
    gc.disable()
    try:
        yield
    finally:
        gc.enable()


@pytest.mark.no_refcount
@pytest.mark.parametrize(
    ("opened", "make", "ends", "end"),
    [
        (tcp, Recorder, 2, "close"),
        (tcp, Recorder, 2, "abort"),
        (tcp, BufferedRecorder, 2, "close"),
        (tls, Recorder, 2, "close"),
        (tls, Recorder, 2, "abort"),
        (datagrams, Datagrams, 1, "close"),
        (datagrams, Datagrams, 1, "abort"),
        (pipes, Recorder, 2, "close"),
    ],
)
async def test_a_context_that_has_the_protocol_is_released_at_the_end(
    loop_kind, opened, make, ends, end
):
    """No reference cycle is left to a garbage collection."""
    if loop_kind == "asyncio" and (opened, end) == (tls, "close"):
        pytest.skip("asyncio's TLS leaves a cycle of its own")
    made, lost = [], []

    def keep(protocol, *args):
        var.set(protocol)
        made.append(weakref.ref(protocol))

    with no_collection():
        await opened(
            lambda: make(made=keep, lost=lambda p, exc: lost.append(exc))
        )
        await spin(lambda: len(made) == ends)
        getattr(made[0]().transport, end)()
        await spin(lambda: len(lost) == ends)
        await iterations()
        assert [ref() for ref in made] == [None] * ends
