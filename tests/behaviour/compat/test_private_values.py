"""Private attributes of loops, handles and transports, and what they say.

Debuggers, monitors and test suites read them; asyncio's loop is the measure.
"""

from __future__ import annotations

import asyncio
import concurrent.futures
import contextvars
import gc
import os
import re
import signal
import socket
import sys
import time

import pytest
from hosts import Host, Made, only_tcp
from net_helpers import (
    Recorder,
    client_context,
    every_kind,
    iterations,
    server_context,
    spin,
)
from patience import PATIENCE

# -- the loop ----------------------------------------------------------------


def test_state_of_a_loop(loop, iterate):
    assert loop._closed is False
    assert loop._stopping is False
    assert loop._debug is False
    loop.set_debug(True)
    assert loop._debug is True
    loop._debug = False
    assert loop.get_debug() is False
    seen = []
    loop.call_soon(loop.stop)
    loop.call_soon(lambda: seen.append(loop._stopping))
    loop.run_forever()
    assert seen == [True]
    assert loop._stopping is False
    loop.close()
    assert loop._closed is True


def test_checks_of_a_loop(loop, run, in_thread):
    assert loop._check_closed() is None
    assert loop._check_running() is None
    assert loop._check_thread() is None
    assert loop._check_callback(print, "method") is None
    with pytest.raises(TypeError, match="callable object was expected by me"):
        loop._check_callback(None, "method")
    with pytest.raises(TypeError, match="coroutines cannot be used with me"):
        loop._check_callback(asyncio.sleep, "method")
    raised = []

    def elsewhere():
        try:
            loop._check_thread()
        except RuntimeError as exc:
            raised.append(str(exc))

    async def main():
        with pytest.raises(RuntimeError, match="already running"):
            loop._check_running()
        in_thread(elsewhere).join()

    run(main())
    assert "Non-thread-safe operation" in raised[0]
    loop.close()
    with pytest.raises(RuntimeError, match="Event loop is closed"):
        loop._check_closed()


def test_factories_and_handlers(loop):
    def factory(loop, coro, **named):
        return asyncio.Task(coro, loop=loop, **named)

    assert loop._task_factory is None
    loop.set_task_factory(factory)
    assert loop._task_factory is factory
    loop._task_factory = None
    assert loop.get_task_factory() is None
    handler = loop._exception_handler
    assert handler is loop.get_exception_handler()
    loop._exception_handler = None
    assert loop.get_exception_handler() is None


async def test_default_executor(loop):
    assert loop._default_executor is None
    await asyncio.to_thread(int)
    executor = loop._default_executor
    assert isinstance(executor, concurrent.futures.ThreadPoolExecutor)
    count = getattr(os, "process_cpu_count", os.cpu_count)() or 1
    assert executor._max_workers == min(32, count + 4)
    assert len(executor._threads) == 1
    assert executor._work_queue.qsize() == 0
    assert loop._default_executor is executor
    mine = concurrent.futures.ThreadPoolExecutor(1)
    loop.set_default_executor(mine)
    assert loop._default_executor is mine
    executor.shutdown()


async def test_generators_of_a_loop(loop):
    async def generator():
        yield

    assert len(loop._asyncgens) == 0
    one = generator()
    await anext(one)
    assert list(loop._asyncgens) == [one]
    await one.aclose()


def test_signal_handlers_of_a_loop(loop):
    assert loop._signal_handlers == {}
    seen = []
    loop.add_signal_handler(signal.SIGUSR1, seen.append, "called")
    handle = loop._signal_handlers[signal.SIGUSR1]
    assert isinstance(handle, asyncio.Handle)
    assert handle._args == ("called",)
    loop._handle_signal(signal.SIGUSR1)
    loop.remove_signal_handler(signal.SIGUSR1)
    assert loop._signal_handlers == {}


def test_clock_and_timers_of_a_loop(loop):
    resolution = time.get_clock_info("monotonic").resolution
    assert loop._clock_resolution == resolution
    handle = loop.call_later(1000, print)
    before = loop._timer_cancelled_count
    loop._timer_handle_cancelled(handle)
    assert loop._timer_cancelled_count in (before, before + 1)
    handle.cancel()
    loop._write_to_self()
    loop._run_once()


def test_the_handle_that_runs(debug, iterate):
    seen = []
    assert debug._current_handle is None
    handle = debug.call_soon(lambda: seen.append(debug._current_handle))
    iterate()
    assert seen == [handle]
    assert debug._current_handle is None


async def test_watchers_by_private_names(loop):
    seen = []
    near, far = socket.socketpair()
    with near, far:
        far.send(b"x")
        handle = loop._add_reader(near, seen.append, "in")
        other = loop._add_writer(near, seen.append, "out")
        for each in (handle, other):
            assert isinstance(each, asyncio.Handle)
        await iterations(2)
        assert {"in", "out"} == set(seen)
        assert loop._remove_reader(near) is True
        assert loop._remove_reader(near) is False
        assert loop._remove_writer(near) is True


async def test_serving_by_private_names(loop):
    made = Made()
    with socket.create_server(("127.0.0.1", 0)) as listener:
        listener.setblocking(False)
        loop._start_serving(made, listener)
        near, protocol = await loop.create_connection(
            Recorder, *listener.getsockname()
        )
        near.abort()
        await protocol.wait_lost()
        await spin(lambda: made)
        await made[0].wait_lost()
        loop._stop_serving(listener)
        assert listener.fileno() == -1


async def test_transports_by_private_names(loop):
    near, far = socket.socketpair()
    near.setblocking(False)
    far.setblocking(False)
    waiter, protocol = loop.create_future(), Recorder()
    plain = loop._make_socket_transport(
        near, protocol, waiter, extra={"more": 5}, server=None
    )
    await waiter
    assert plain.get_extra_info("more") == 5
    plain.abort()
    await protocol.wait_lost()
    far.close()


async def test_tls_by_private_names(loop):
    near, far = socket.socketpair()
    near.setblocking(False)
    far.setblocking(False)
    ours, theirs = Recorder(), Recorder()
    ready = [loop.create_future() for _ in "ab"]
    loop._make_ssl_transport(
        near, ours, server_context(), ready[0], server_side=True
    )
    client = loop._make_ssl_transport(
        far,
        theirs,
        client_context(),
        ready[1],
        server_hostname="localhost",
    )
    await asyncio.gather(*ready)
    client.write(b"secret")
    assert await ours.wait_data(6) == b"secret"
    client.close()
    await ours.wait_lost()
    await theirs.wait_lost()


@pytest.mark.skipif(sys.version_info < (3, 13), reason="new in 3.13")
async def test_unix_servers_of_a_loop(loop, tmp_path):
    assert len(loop._unix_server_sockets) == 0
    server = await loop.create_unix_server(Recorder, tmp_path / "path")
    assert len(loop._unix_server_sockets) == 1
    server.close()
    await server.wait_closed()
    assert not (tmp_path / "path").exists()


# -- handles -----------------------------------------------------------------


@pytest.mark.parametrize("way", ["call_soon", "call_soon_threadsafe"])
def test_inside_of_a_handle(loop, iterate, way):
    context = contextvars.copy_context()
    seen = []
    handle = getattr(loop, way)(seen.append, "x", context=context)
    assert handle._callback == seen.append
    assert handle._args == ("x",)
    assert handle._context is context
    assert handle._loop is loop
    assert handle._cancelled is False
    assert handle._source_traceback is None
    assert handle._repr is None
    name, call = handle._repr_info()
    assert name in ("Handle", "_ThreadSafeHandle")
    assert "append" in call
    handle._run()
    handle.cancel()
    assert handle._cancelled is True
    assert handle._callback is None
    assert handle._args is None
    iterate()
    assert seen == ["x"]


def test_inside_of_a_timer(loop, run):
    seen = []
    when = loop.time() + 1000
    handle = loop.call_at(when, seen.append, "x")
    assert handle._when == when == handle.when()
    assert handle._scheduled is True
    assert handle._callback == seen.append
    assert handle._repr_info()[1] == f"when={when}"
    handle._run()
    handle.cancel()
    assert seen == ["x"]
    soon = loop.call_later(0, seen.append, "y")
    run(asyncio.sleep(0.001))
    assert soon._scheduled is False
    assert seen == ["x", "y"]


def test_repr_of_a_cancelled_handle_is_cached(debug):
    handle = debug.call_soon(print, "an argument")
    handle.cancel()
    assert handle._repr == repr(handle)
    assert "cancelled" in handle._repr
    assert re.search("created at .*test_private_values", handle._repr)


# -- transports --------------------------------------------------------------


@every_kind
async def test_state_of_a_transport(transport_pair, loop, kind):
    c = await transport_pair()
    transport = c.transport
    assert transport._loop is loop
    assert transport._protocol is c.protocol
    sock = transport._sock
    assert isinstance(sock, socket.socket)
    assert sock.fileno() == transport._sock_fd
    assert (transport._server is None) is (kind != "tcp-server")
    assert transport.max_size == 256 * 1024
    assert transport._start_tls_compatible is True
    assert transport._sendfile_compatible.name == "TRY_NATIVE"
    assert transport._paused is False
    transport.pause_reading()
    assert transport._paused is True
    assert transport._eof is False
    transport.write_eof()
    assert transport._eof is True
    assert transport._closing is False
    assert transport._conn_lost == 0
    transport._force_close(None)
    assert transport._closing is True
    assert transport._conn_lost == 1
    await c.protocol.wait_lost()
    assert transport._loop is None
    assert transport._protocol is None


@every_kind
async def test_sock_of_a_lost_transport_can_be_set_to_none(transport_pair):
    c = await transport_pair()
    c.transport.abort()
    await c.protocol.wait_lost()
    c.transport._sock = None
    assert c.transport._sock is None


@pytest.mark.filterwarnings("ignore:unclosed:ResourceWarning")
def test_a_connection_ends_if_its_sock_was_set_to_none(loop_factory):
    """Of a closed loop; asyncio's socket is closed when it is freed."""
    loop = loop_factory()
    host = Host(loop)
    server = loop.run_until_complete(host.serve())
    with host.plain() as client:
        loop.run_until_complete(spin(lambda: host.made))
        server.close()
        loop.close()
        host.made[0].transport._sock = None
        host.made[0].transport = None
        host.made.clear()
        gc.collect()
        client.settimeout(PATIENCE)
        assert client.recv(1) == b""


PRIVATE_ATTRIBUTES = (
    "_loop _sock _sock_fd _server _closing _conn_lost _paused "
    "_protocol_paused _buffer _protocol _extra _eof _empty_waiter"
).split()


@only_tcp
@pytest.mark.parametrize("name", PRIVATE_ATTRIBUTES)
async def test_a_connection_works_after_its_attributes_were_read(host, name):
    def echo(protocol, data):
        getattr(protocol.transport, name, None)
        protocol.transport.write(data)

    server = await host.serve(lambda: Recorder(data=echo))
    reader, writer = await host.open()
    for _ in range(3):
        writer.write(b"data")
        assert await reader.readexactly(4) == b"data"
    writer.close()
    await writer.wait_closed()
    server.close()
    await server.wait_closed()
