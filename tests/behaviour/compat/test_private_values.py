"""Private attributes of loops, handles and transports, and what they say.

Debuggers, monitors and test suites read them, and guests put their own
functions and classes into asyncio; asyncio's loop is the measure.
"""

from __future__ import annotations

import asyncio
import concurrent.futures
import contextvars
import os
import re
import signal
import socket
import time

import pytest
from hosts import Made, only_tcp
from net_helpers import (
    Recorder,
    every_kind,
    iterations,
    spin,
)

# -- the loop ----------------------------------------------------------------


def test_state_of_a_loop(loop):
    assert loop._closed is loop._stopping is loop._debug is False
    seen = []
    loop.call_soon(loop.stop)
    loop.call_soon(lambda: seen.append(loop._stopping))
    loop.run_forever()
    assert seen == [True]
    assert loop._stopping is False
    loop.close()
    assert loop._closed is True


def factory(loop, coro, **named):
    return asyncio.Task(coro, loop=loop, **named)


@pytest.mark.parametrize(
    ("name", "value", "other"),
    [
        ("debug", True, False),
        ("task_factory", factory, None),
        ("exception_handler", factory, None),
    ],
)
def test_a_setting_is_an_attribute(loop, name, value, other):
    getattr(loop, f"set_{name}")(value)
    assert getattr(loop, f"_{name}") is value
    setattr(loop, f"_{name}", other)
    assert getattr(loop, f"get_{name}")() is other


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


# -- what programs put in its place -------------------------------------------


def test_replaced_function_that_sets_the_running_loop(loop, monkeypatch):
    seen = []
    original = asyncio.events._set_running_loop

    def replacement(running):
        seen.append(running)
        original(running)

    monkeypatch.setattr(asyncio.events, "_set_running_loop", replacement)
    loop.call_soon(loop.stop)
    loop.run_forever()
    assert seen == [loop, None]


class NoNumber:
    """A listening socket whose descriptor is no number."""

    type = socket.SOCK_STREAM

    def fileno(self):
        return "seven"

    def setblocking(self, flag):
        assert flag is False

    def listen(self, backlog):
        assert backlog > 0

    def close(self):
        pass


def test_server_of_an_object_without_a_descriptor(loop, run):
    with pytest.raises(ValueError, match="Invalid file object"):
        run(loop.create_server(asyncio.Protocol, sock=NoNumber()))


def test_cancelled_handle_is_not_queued(loop):
    seen = []
    handle = asyncio.Handle(seen.append, (1,), loop)
    cancelled = asyncio.Handle(seen.append, (2,), loop)
    cancelled.cancel()
    loop._add_callback(cancelled)
    loop._add_callback(handle)
    assert list(loop._ready) == [handle]
    loop.call_soon(loop.stop)
    loop.run_forever()
    assert seen == [1]


class OtherTask(asyncio.tasks._PyTask):
    pass


class OtherFuture(asyncio.futures._PyFuture):
    pass


def use_other_classes(patch):
    """Put in classes in Python, as programs that nest loops do."""
    patch.setattr(asyncio.tasks, "Task", OtherTask)
    patch.setattr(asyncio.futures, "Future", OtherFuture)


def test_replaced_classes_of_tasks_and_futures(loop, monkeypatch):
    async def child():
        await asyncio.sleep(0)
        return "done"

    async def main():
        task = loop.create_task(child(), name="child")
        bare = loop.create_task(child())
        future = loop.create_future()
        future.set_result(None)
        await asyncio.gather(task, bare, future)
        return [type(each) for each in (task, bare, future)]

    with monkeypatch.context() as patch:
        use_other_classes(patch)
        before = loop.create_future()
        assert type(before) is OtherFuture
        assert before.get_loop() is loop
        found = loop.run_until_complete(main())
    assert found == [OtherTask, OtherTask, OtherFuture]


def test_running_loop_noted_in_python_alone(loop, monkeypatch):
    async def main():
        return loop.create_future().get_loop()

    events = asyncio.events
    with monkeypatch.context() as patch:
        use_other_classes(patch)
        for name in ("_get_running_loop", "_set_running_loop"):
            patch.setattr(events, name, getattr(events, f"_py_{name}"))
        assert loop.run_until_complete(main()) is loop


def test_a_handle_of_another_loop_is_run(loop, loop_factory):
    other = loop_factory()
    seen = []
    handle = other.call_soon(seen.append, 1)
    loop._add_callback(handle)
    loop.call_soon(loop.stop)
    loop.run_forever()
    assert seen == [1]
    other.close()
