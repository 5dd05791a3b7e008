"""In which contextvars context a transport calls its protocol.

The context is a copy of the one the connection was made in (a client's) or
its server was (a server's); connections share nothing with each other.
"""

from __future__ import annotations

import asyncio
import contextvars
import socket

import pytest
from net_helpers import (
    MIB,
    BufferedRecorder,
    Peer,
    Recorder,
    every_kind,
    link,
    tcp_socketpair,
    turns,
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
def test_callbacks_run_in_the_context_of_the_maker(run, kind, make):
    protocol, seen = watched(make)

    async def main():
        var.set("maker")
        async with link(kind, protocol) as c:
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

    run(main())


@every_kind
def test_nothing_leaks_into_the_maker(run, kind):
    def change(protocol, *args):
        var.set("from the protocol")

    async def main():
        async with link(kind, Recorder(made=change, data=change)) as c:
            await c.peer.send(b"data")
            await c.protocol.wait_data(4)
            assert var.get() == "default"

    run(main())


@every_kind
def test_what_one_callback_sets_the_next_sees(run, kind):
    got = []

    def count(protocol, data):
        got.append(var.get())
        var.set(f"after {len(got)}")

    async def main():
        async with link(kind, Recorder(data=count)) as c:
            for i in range(1, 4):
                await c.peer.send(b"x")
                await c.protocol.wait_data(i)
            assert got == ["default", "after 1", "after 2"]

    run(main())


@every_kind
def test_connections_share_nothing(run, kind):
    def change(protocol, data):
        assert var.get() == "default"
        var.set(bytes(data))

    async def main():
        first, second = Recorder(data=change), Recorder(data=change)
        async with link(kind, first) as a, link(kind, second) as b:
            await a.peer.send(b"a")
            await first.wait_data(1)
            await b.peer.send(b"b")
            await second.wait_data(1)

    run(main())


def test_connections_of_one_server_share_nothing(run, loop):
    """Also when one accept takes them all."""
    protocols = []

    def change(protocol, *args):
        assert var.get() == "of the server"
        if protocol.names[-1] == "data":
            var.set("of a connection")

    def factory():
        assert var.get() == "of the server"
        protocols.append(Recorder(made=change, data=change))
        return protocols[-1]

    async def main():
        token = var.set("of the server")
        server = await loop.create_server(factory, "127.0.0.1", 0)
        var.reset(token)
        address = server.sockets[0].getsockname()
        peers = []
        for _ in range(5):
            peers.append(socket.create_connection(address))
            peers[-1].send(b"data")
        while len(protocols) < 5:
            await asyncio.sleep(0)
        for protocol in protocols:
            await protocol.wait_data(4)
        for peer in peers:
            peer.close()
        for protocol in protocols:
            await protocol.wait_lost()
            assert protocol.names == ["made", "data", "eof", "lost"]
        server.close()

    run(main())


@every_kind
def test_flow_calls_run_in_the_context_of_the_writer(run, kind):
    seen = []

    async def main():
        protocol = Recorder(pause=lambda p: seen.append(var.get()))
        async with link(kind, protocol) as c:
            c.shrink()
            var.set("writer")
            c.transport.write(bytes(2 * MIB))
            assert seen == ["writer"]

    run(main())


@every_kind
def test_lost_after_abort_in_the_aborting_callback(run, kind):
    """A value set in the callback that ends the connection is not lost."""
    seen = []

    def end(protocol, data):
        protocol.transport.abort()

    async def main():
        var.set("maker")
        protocol = Recorder(data=end, lost=lambda p, e: seen.append(var.get()))
        async with link(kind, protocol) as c:
            var.set("changed")
            await c.peer.send(b"data")
            await c.protocol.wait_lost()
            assert seen == ["maker"]

    run(main())


def test_tasks_made_by_a_protocol_inherit_its_context(run, loop):
    results = []

    async def handle():
        results.append(var.get())

    def spawn(protocol, data):
        var.set("request")
        protocol.task = loop.create_task(handle())

    async def main():
        async with link("tcp-server", Recorder(data=spawn)) as c:
            await c.peer.send(b"data")
            await c.protocol.wait_data(4)
            await c.protocol.task
            assert results == ["request"]
            assert var.get() == "default"

    run(main())


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
        await turns(1)

    def enter():
        var.set("entered")
        loop.run_until_complete(main())

    contextvars.copy_context().run(enter)
    far.close()
    assert seen == {"made": "entered", "data": "entered", "lost": "entered"}
