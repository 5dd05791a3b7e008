"""What a flush of corked writes comes before, and what may happen inside it.

Writes are corked until the iteration ends; other code of that iteration must
not notice, except by looking at the peer.
"""

from __future__ import annotations

import asyncio
import gc
import os
import signal
import socket
import subprocess
import sys
import textwrap
import threading
import traceback
import types
from asyncio import format_helpers

import pytest
from net_helpers import iterations, spin
from write_helpers import (
    HOLDS,
    in_callbacks,
    in_one_iteration,
    served,
    two_served,
)


class AtCollection:
    """A cycle: runs a function when the GC finds it."""

    def __init__(self, function):
        self.function, self.cycle = function, self

    def __del__(self):
        self.function()


@pytest.fixture
def collect_soon():
    """Return a function that has the next allocation of objects run the GC."""
    before = gc.get_threshold()
    gc.collect()
    gc.freeze()
    gc.disable()

    def begin():
        gc.enable()
        gc.set_threshold(1)

    yield begin
    gc.set_threshold(*before)
    gc.enable()
    gc.unfreeze()


@pytest.mark.skipif(not HOLDS, reason="without a GIL nothing is corked")
@pytest.mark.parametrize("way", ["close", "write_eof", "write"])
@pytest.mark.parametrize("debug", [False, True])
async def test_a_failed_send_may_use_the_streams_that_are_corked(
    loop, collect_soon, way, debug
):
    """The exception of the failure runs the GC, and that a finalizer."""
    async with two_served() as (one, first, two, second):
        loop.set_debug(debug)
        loop.slow_callback_duration = 100
        one.pause_reading()
        first.sock.close()
        await iterations()
        ran = []

        def use():
            gc.set_threshold(100_000)
            ran.append(way)
            two.write(b"2") if way == "write" else getattr(two, way)()

        def prepare():
            AtCollection(use)
            collect_soon()

        await in_one_iteration(
            lambda: one.write(b"1"),
            lambda: two.write(b"1"),
            prepare,
            lambda: None,
        )
        await spin(lambda: ran)
        loop.set_debug(False)
        await iterations()
        expected = b"12" if way == "write" else b"1"
        assert second.receive(len(expected)) == expected
        assert way == "write" or second.receive(1) == b""


@pytest.mark.skipif(
    "ASAN_OPTIONS" in os.environ,
    reason="CPython 3.13 uses a freed thread state when it ends such threads",
)
def test_a_daemon_thread_loses_no_bytes_at_exit(loop_kind):
    """The main thread ends while a callback of the loop still runs."""
    program = f"""
        import asyncio, fastloop, os, socket, threading, time

        new_loop = dict(asyncio=asyncio.new_event_loop,
                        fastloop=fastloop.new_event_loop)["{loop_kind}"]
        loop = new_loop()
        threading.Thread(target=loop.run_forever, daemon=True).start()

        class Server(asyncio.Protocol):
            def connection_made(self, transport):
                self.transport = transport

        async def serve():
            server = await loop.create_server(lambda: protocol, "127.0.0.1", 0)
            peer = socket.create_connection(server.sockets[0].getsockname())
            while not hasattr(protocol, "transport"):
                await asyncio.sleep(0)
            return server, peer

        def write():
            protocol.transport.write(b"goodbye")
            written.set()

        def both():
            loop.call_soon(write)
            loop.call_soon(time.sleep, 60)

        protocol, written = Server(), threading.Event()
        server, peer = asyncio.run_coroutine_threadsafe(serve(), loop).result()
        if os.fork():
            peer.close()
            loop.call_soon_threadsafe(both)
            written.wait()
        else:
            peer.settimeout(10)
            os.write(1, peer.recv(100))
            os._exit(0)
    """
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", textwrap.dedent(program)],
        stdout=subprocess.PIPE,
        timeout=60,
    )
    assert done.stdout == b"goodbye"


async def test_a_writer_callback_sends_after_what_was_written(loop):
    """A callback of add_writer() sends without the loop's knowledge."""
    async with two_served() as (one, first, _, _):
        near, far = socket.socketpair()
        near.setblocking(False)
        written, received, done = 0, 0, loop.create_future()

        def send():
            nonlocal received
            near.send(b"2")
            received += len(first.look())
            loop.remove_writer(near)
            done.set_result(written)

        def write():
            nonlocal written
            if not done.done():
                written += 1
                one.write(b"1")
                loop.call_soon(write)

        with near, far:
            loop.call_soon(write)
            loop.call_soon(write)
            await iterations()
            loop.add_writer(near, send)
            assert await done == received


def test_a_write_to_an_idle_loop_comes_later(loop, loop_factory):
    """Bytes leave in the order of the writes, whichever loop has them."""
    other = loop_factory()

    async def main():
        async with two_served() as (one, first, _, _):
            seen = await in_one_iteration(
                lambda: one.write(b"1"),
                lambda: (idle.write(b"2"), first.look()),
                lambda: None,
            )
            assert seen[1][1] == b"1"

    connection = served()
    try:
        idle, peer = other.run_until_complete(connection.__aenter__())
        loop.run_until_complete(main())
        assert peer.receive(1) == b"2"
        other.run_until_complete(connection.__aexit__(None, None, None))
    finally:
        other.close()


@pytest.mark.skipif(
    sys.version_info >= (3, 14), reason="a thread runs one task from 3.14 on"
)
def test_a_loop_within_a_callback_sends_in_the_order_of_the_writes(
    loop, loop_factory
):
    """A callback runs another loop, which writes to the first one's stream."""
    other = loop_factory()
    connection = served()
    inner, peer = other.run_until_complete(connection.__aenter__())

    def nested(coroutine):
        asyncio._set_running_loop(None)
        try:
            return other.run_until_complete(coroutine)
        finally:
            asyncio._set_running_loop(loop)

    async def write(outer):
        return await in_one_iteration(
            lambda: inner.write(b"1"),
            lambda: (outer.write(b"2"), peer.look()),
            lambda: None,
        )

    async def main():
        async with two_served() as (outer, _, _, _):
            [seen] = await in_one_iteration(lambda: nested(write(outer)))
            assert seen[1][1] == b"1"

    try:
        loop.run_until_complete(main())
    finally:
        other.run_until_complete(connection.__aexit__(None, None, None))
        other.close()


@pytest.mark.skipif(
    sys.version_info < (3, 14), reason="cancel() waits from 3.14 on"
)
async def test_cancel_waits_for_a_callback_that_waits_for_bytes(
    loop, loop_factory
):
    other = loop_factory()
    thread = threading.Thread(target=other.run_forever)
    thread.start()
    began, got = threading.Event(), []
    try:
        async with served() as (transport, peer):

            def callback():
                began.set()
                got.append(peer.receive(2))

            def work():
                handle = other.call_soon_threadsafe(callback)
                assert began.wait(10)
                transport.write(b"1")
                transport.write(b"2")
                handle.cancel()

            await in_callbacks(work)
            await spin(lambda: got)
            assert got == [b"12"]
    finally:
        other.call_soon_threadsafe(other.stop)
        thread.join()
        other.close()


def test_ctrl_c_in_a_stack_of_debug_mode_leaves_the_run(
    loop, loop_kind, monkeypatch
):
    """close() notes the stack of its caller then."""
    if loop_kind == "asyncio":
        pytest.skip("its transport is never closed then")

    def interrupted(*args, **words):
        monkeypatch.undo()
        signal.raise_signal(signal.SIGINT)
        return traceback.StackSummary.extract(*args, **words)

    async def main():
        async with served() as (transport, _):
            monkeypatch.setattr(
                format_helpers.traceback,
                "StackSummary",
                types.SimpleNamespace(extract=interrupted),
            )
            transport.close()
            await asyncio.sleep(0)
            await asyncio.sleep(0)

    loop.set_debug(True)
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    task = loop.create_task(main())
    try:
        with pytest.raises(KeyboardInterrupt):
            loop.run_until_complete(task)
    finally:
        signal.signal(signal.SIGINT, before)
        monkeypatch.undo()
        loop.set_debug(False)
        task.cancel()
        loop.run_until_complete(asyncio.wait([task]))
        assert task.done()


async def test_the_metric_of_waiting_bytes_leaves_out_corked_ones():
    fastloop = pytest.importorskip("fastloop")
    loop = asyncio.get_running_loop()
    if not isinstance(loop, fastloop.Loop):
        pytest.skip("asyncio has no metrics")
    loop.enable_metrics()
    async with two_served() as (one, first, _, _):
        await in_callbacks(
            lambda: (one.write(b"1"), one.write(b"2"), one.pause_reading())
        )
        assert first.receive(2) == b"12"
        assert loop.metrics().write_buffer_bytes == 0
