"""In which contextvars context a transport calls its protocol.

The context is a copy of the one the connection was made in (a client's) or
its server was (a server's); connections share nothing with each other.
"""

from __future__ import annotations

import contextvars

import pytest
from net_helpers import (
    MIB,
    BufferedRecorder,
    Peer,
    Recorder,
    every_kind,
    iterations,
    spin,
    tcp_socketpair,
)

var = contextvars.ContextVar("var", default="default")


def watched(make=Recorder):
    """A protocol that notes what `var` holds in each of its callbacks."""
    seen = {}

    def noter(name):
        def note(protocol, *args):
            seen.setdefault(name, var.get())

        return note

    names = ("made", "data", "eof", "lost")
    protocol = make(**{name: noter(name) for name in names})
    return protocol, seen


@pytest.mark.parametrize("make", [Recorder, BufferedRecorder])
@every_kind
async def test_callbacks_run_in_the_context_of_the_maker(transport_pair, make):
    protocol, seen = watched(make)
    var.set("maker")
    c = await transport_pair(protocol)
    var.set("changed")
    await c.peer.send(b"data")
    await c.protocol.wait_data(4)
    c.peer.send_eof()
    await c.protocol.wait_lost()
    assert seen == {
        "made": "maker",
        "data": "maker",
        "eof": "maker",
        "lost": "maker",
    }


@every_kind
async def test_nothing_leaks_into_the_maker(transport_pair):
    def change(protocol, *args):
        var.set("from the protocol")

    c = await transport_pair(Recorder(made=change, data=change))
    await c.peer.send(b"data")
    await c.protocol.wait_data(4)
    assert var.get() == "default"


@every_kind
async def test_context_variables_set_by_one_callback_reach_the_next(
    transport_pair,
):
    got = []

    def count(protocol, data):
        got.append(var.get())
        var.set(f"after {len(got)}")

    c = await transport_pair(Recorder(data=count))
    for i in range(1, 4):
        await c.peer.send(b"x")
        await c.protocol.wait_data(i)
    assert got == ["default", "after 1", "after 2"]


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


@every_kind
async def test_flow_calls_run_in_the_context_of_the_writer(transport_pair):
    seen = []
    protocol = Recorder(pause=lambda p: seen.append(var.get()))
    c = await transport_pair(protocol)
    c.shrink()
    var.set("writer")
    c.transport.write(bytes(2 * MIB))
    assert seen == ["writer"]


def test_the_loop_may_be_entered_from_a_context_of_the_user(loop):
    """run_until_complete inside Context.run, transports made in it."""
    protocol, seen = watched()
    near, far = tcp_socketpair()
    near.setblocking(False)

    async def main():
        transport, _ = await loop.create_connection(
            lambda: protocol, sock=near
        )
        peer = Peer(far)
        await peer.send(b"data")
        await protocol.wait_data(4)
        transport.close()
        await protocol.wait_lost()
        await iterations(1)

    def enter():
        var.set("entered")
        loop.run_until_complete(main())

    contextvars.copy_context().run(enter)
    far.close()
    assert seen == {"made": "entered", "data": "entered", "lost": "entered"}
