"""close: what it refuses, what it leaves, and unclosed loops."""

import _thread
import asyncio
import contextlib
import gc
import signal
import threading
import warnings
import weakref

import pytest
from patience import PATIENCE


def by_coroutine(call):
    with contextlib.closing(asyncio.sleep(0)) as coro:
        call(coro)


def drive(coro):
    try:
        coro.send(None)
    finally:
        coro.close()


REFUSED = {
    "call_soon": lambda loop, fd: loop.call_soon(print),
    "call_later": lambda loop, fd: loop.call_later(1, print),
    "call_later_0": lambda loop, fd: loop.call_later(0, print),
    "call_at": lambda loop, fd: loop.call_at(1e9, print),
    "call_at_wrong": lambda loop, fd: loop.call_at("soon", print),
    "call_soon_threadsafe": lambda loop, fd: loop.call_soon_threadsafe(print),
    "run_forever": lambda loop, fd: loop.run_forever(),
    "run_until_complete": lambda loop, fd: loop.run_until_complete(
        loop.create_future()
    ),
    "create_task": lambda loop, fd: by_coroutine(loop.create_task),
    "run_a_coroutine": lambda loop, fd: by_coroutine(loop.run_until_complete),
    "getaddrinfo": lambda loop, fd: drive(loop.getaddrinfo("localhost", 1)),
    "run_in_executor": lambda loop, fd: loop.run_in_executor(None, print),
    "add_reader": lambda loop, fd: loop.add_reader(fd, print),
    "add_writer": lambda loop, fd: loop.add_writer(fd, print),
    "add_signal_handler": lambda loop, fd: loop.add_signal_handler(
        signal.SIGUSR1, print
    ),
}


@pytest.mark.parametrize("name", REFUSED)
def test_a_closed_loop_refuses_calls(loop, pair, name):
    loop.close()
    with pytest.raises(RuntimeError) as caught:
        REFUSED[name](loop, pair[0])
    assert str(caught.value) == "Event loop is closed"


def test_watchers_are_dropped_by_close(loop, pair):
    left, right = pair

    def callback():
        pass

    alive = weakref.ref(callback)
    loop.add_reader(left, callback)
    loop.add_writer(left, callback)
    del callback
    loop.close()
    gc.collect()
    assert alive() is None
    left.send(b"x")
    assert right.recv(1) == b"x"


@pytest.mark.reports
def test_unclosed_loop_warns(loop_factory):
    loop = loop_factory()
    name = type(loop).__name__
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        del loop
        gc.collect()
    (warning,) = [w for w in caught if "unclosed event loop" in str(w.message)]
    assert type(warning.source).__name__ == name
    assert {w.category for w in caught} == {ResourceWarning}


def test_a_run_leaves_no_thread_object_of_a_foreign_thread(loop_factory):
    ended = threading.Event()

    def run():
        loop = loop_factory()
        loop.run_until_complete(asyncio.sleep(0))
        loop.close()
        ended.set()

    before = threading.active_count()
    _thread.start_new_thread(run, ())
    assert ended.wait(PATIENCE)
    assert threading.active_count() == before
