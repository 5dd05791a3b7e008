"""In which contextvars context a transport calls its protocol.

The context is a copy of the one the connection was made in (a client's) or
its server was (a server's); connections share nothing with each other.
"""

import contextvars
import weakref

import pytest
from net_helpers import (
    OPENINGS,
    PY315,
    BufferedRecorder,
    Recorder,
    every_kind,
    for_tls,
    iterations,
    open_on_pair,
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


async def opened(loop, kind, make):
    """Two transports joined, or one and a plain socket; how many there are."""
    if kind in OPENINGS:
        opening, _, far = open_on_pair(loop, kind, make)
        await opening
        return far, 1
    for_server, for_client = for_tls(kind == "tls")
    server = await loop.create_server(make, "127.0.0.1", 0, **for_server)
    address = server.sockets[0].getsockname()
    await loop.create_connection(make, *address, **for_client)
    return server, 2


@pytest.mark.no_refcount
@pytest.mark.parametrize("kind", [*OPENINGS, "tcp", "buffered", "tls"])
@pytest.mark.parametrize("end", ["close", "abort"])
async def test_a_context_that_has_the_protocol_is_released_at_the_end(
    loop, loop_kind, kind, end, no_automatic_gc
):
    """No reference cycle is left to a garbage collection."""
    if loop_kind == "asyncio" and (kind, end) == ("tls", "close"):
        pytest.skip("asyncio's TLS leaves a cycle of its own")
    if loop_kind == "asyncio" and PY315:
        pytest.skip("asyncio's streams keep their context")
    make = BufferedRecorder if kind == "buffered" else Recorder
    made, lost = [], []

    def keep(protocol, *args):
        var.set(protocol)
        made.append(weakref.ref(protocol))

    other, count = await opened(
        loop,
        kind,
        lambda: make(made=keep, lost=lambda p, exc: lost.append(exc)),
    )
    await spin(lambda: len(made) == count)
    transport = made[0]().transport
    getattr(transport, end if kind != "read pipe" else "close")()
    del transport
    await spin(lambda: len(lost) == count)
    other.close()
    await iterations()
    assert [ref() for ref in made] == [None] * count
