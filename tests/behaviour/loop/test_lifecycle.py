"""close: what it refuses, what it leaves, and unclosed loops."""

import _thread
import asyncio
import contextlib
import gc
import os
import signal
import sys
import threading
import warnings
import weakref

import pytest
from patience import PATIENCE


def test_close_while_running(loop, iterate):
    raised = []

    def callback():
        try:
            loop.close()
        except RuntimeError as exc:
            raised.append(str(exc))

    loop.call_soon(callback)
    iterate()
    assert raised == ["Cannot close a running event loop"]
    assert not loop.is_closed()


def test_close_from_another_thread_while_running(loop, in_thread):
    raised = []

    def other():
        try:
            loop.close()
        except RuntimeError as exc:
            raised.append(str(exc))
        loop.call_soon_threadsafe(loop.stop)

    loop.call_soon(lambda: in_thread(other))
    loop.run_forever()
    assert raised == ["Cannot close a running event loop"]


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
    "getaddrinfo": lambda loop, fd: drive(loop.getaddrinfo("localhost", 1)),
    "run_in_executor": lambda loop, fd: loop.run_in_executor(None, print),
    "add_reader": lambda loop, fd: loop.add_reader(fd, print),
    "add_writer": lambda loop, fd: loop.add_writer(fd, print),
    "add_signal_handler": lambda loop, fd: loop.add_signal_handler(
        signal.SIGUSR1, print
    ),
}


@pytest.mark.parametrize("name", REFUSED)
def test_refused_on_a_closed_loop(loop, pair, name):
    loop.close()
    with pytest.raises(RuntimeError) as caught:
        REFUSED[name](loop, pair[0])
    assert str(caught.value) == "Event loop is closed"


@pytest.mark.parametrize("method", ["create_task", "run_until_complete"])
def test_coroutine_never_awaited_on_a_closed_loop(loop_factory, method):
    async def main():
        pass

    loop = loop_factory()
    loop.close()
    coro = main()
    with pytest.raises(RuntimeError, match="Event loop is closed"):
        getattr(loop, method)(coro)
    coro.close()


def test_harmless_on_a_closed_loop(loop_factory, pair):
    loop = loop_factory()
    loop.close()
    assert loop.is_closed() is True
    assert loop.is_running() is False
    assert isinstance(loop.time(), float)
    assert loop.get_debug() in (True, False)
    loop.set_debug(False)
    loop.stop()
    assert loop.get_exception_handler() is None
    loop.set_exception_handler(None)
    assert loop.get_task_factory() is None
    loop.set_task_factory(None)
    assert loop.create_future().get_loop() is loop
    assert "closed=True" in repr(loop)
    assert loop.remove_reader(pair[0]) is False
    assert loop.remove_writer(pair[0]) is False


def test_call_exception_handler_works_on_a_closed_loop(loop_factory):
    loop = loop_factory()
    seen = []
    loop.set_exception_handler(lambda _loop, context: seen.append(context))
    loop.close()
    loop.call_exception_handler({"message": "late"})
    assert seen == [{"message": "late"}]


def test_pending_callbacks_never_run(loop_factory):
    loop = loop_factory()
    seen = []
    loop.call_soon(seen.append, 1)
    loop.call_later(0, seen.append, 2)
    loop.call_soon_threadsafe(seen.append, 3)
    loop.close()
    gc.collect()
    assert seen == []


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


def test_close_in_another_thread_than_the_run(loop_factory, in_thread):
    loop = loop_factory()
    loop.run_until_complete(asyncio.sleep(0))
    in_thread(loop.close).join()
    assert loop.is_closed()


def test_made_in_one_thread_and_run_in_another(loop_factory, in_thread):
    made = []
    in_thread(lambda: made.append(loop_factory())).join()
    loop = made[0]
    assert loop.run_until_complete(asyncio.sleep(0.001, 3)) == 3
    loop.close()


def test_state_does_not_carry_over_to_the_next_loop(loop_factory):
    seen = []
    old = loop_factory()
    old.set_exception_handler(lambda loop, context: None)
    old.set_task_factory(
        lambda loop, coro, **kw: asyncio.Task(coro, loop=loop, **kw)
    )
    old.call_later(0.001, seen.append, "old")
    old.call_soon(seen.append, "old")
    old.call_soon_threadsafe(seen.append, "old")
    old.stop()
    old.mine = 1
    old.close()
    new = loop_factory()
    try:
        assert not hasattr(new, "mine")
        assert new.get_exception_handler() is None
        assert new.get_task_factory() is None
        assert new.run_until_complete(asyncio.sleep(0.003, 1)) == 1
        assert seen == []
    finally:
        new.close()


def test_close_during_interpreter_wide_collection(loop_factory):
    class Chain:
        def __init__(self, loop):
            self.loop = loop
            self.me = self

        def __del__(self):
            self.loop.close()

    loop = loop_factory()
    chain = Chain(loop)
    del chain
    gc.collect()
    assert loop.is_closed()


def test_a_second_close_is_silent(loop_factory, capfd):
    loop = loop_factory()
    loop.close()
    loop.close()
    assert loop.is_closed()
    del loop
    gc.collect()
    out, err = capfd.readouterr()
    assert (out, err) == ("", "")


def descriptors():
    found = {}
    for name in os.listdir("/proc/self/fd"):
        with contextlib.suppress(OSError):
            found[int(name)] = os.readlink(f"/proc/self/fd/{name}")
    return {n: what for n, what in found.items() if "/proc/" not in what}


@pytest.mark.skipif(sys.platform != "linux", reason="looks into /proc")
@pytest.mark.parametrize("with_handler", [False, True])
def test_descriptors_stay_the_same_from_run_to_run(loop, with_handler):
    """The names of pipes have their inodes: a new one shows."""

    async def look():
        await asyncio.sleep(0.0001)
        return descriptors()

    if with_handler:
        loop.add_signal_handler(signal.SIGUSR1, lambda: None)
    first = loop.run_until_complete(look())
    for _ in range(5):
        assert loop.run_until_complete(look()) == first
    if with_handler:
        loop.remove_signal_handler(signal.SIGUSR1)


@pytest.mark.reports
@pytest.mark.leaves_tasks
@pytest.mark.filterwarnings("ignore:coroutine:RuntimeWarning")
def test_a_finalizer_closes_the_loop_that_makes_a_task(loop):
    async def nothing():
        pass

    class Closes:
        def __del__(self):
            loop.close()

    coro = nothing()
    loop.create_future().cancel()
    before = gc.get_threshold()
    gc.collect()
    gc.disable()
    cycle = Closes()
    cycle.itself = cycle
    # Then CPython has no freed tuple for the arguments.
    kept = [(number,) for number in range(5000)]
    del cycle
    gc.set_threshold(1, 1, 1)
    try:
        gc.enable()
        loop.create_task(coro)
    except RuntimeError as exc:
        assert str(exc) == "Event loop is closed"
    finally:
        gc.set_threshold(*before)
    del kept
    gc.collect()
    assert loop.is_closed()
    coro.close()


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
