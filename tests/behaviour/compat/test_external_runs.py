"""Runs that programs make themselves, and loops that change how they run.

asyncio's run_forever() is three parts that a guest of another main loop calls
one by one; its run_until_complete() goes through methods of the loop that a
subclass, or a patch, may have replaced.
"""

import asyncio
import contextlib
import signal
import socket
import sys
import threading

import pytest


@contextlib.contextmanager
def a_run(loop):
    """What asyncio's run_forever() does around its iterations."""
    if sys.version_info >= (3, 13):
        loop._run_forever_setup()
        try:
            yield
        finally:
            loop._run_forever_cleanup()
        return
    loop._thread_id = threading.get_ident()
    asyncio._set_running_loop(loop)
    try:
        yield
    finally:
        loop._stopping = False
        loop._thread_id = None
        asyncio._set_running_loop(None)


def iterate_until(loop, done):
    while not done():
        loop._run_once()


def test_a_guests_run_is_a_run(loop, loop_kind):
    if loop_kind == "asyncio" and sys.version_info[:2] == (3, 13):
        pytest.skip("the refused run ends asyncio's running one (3.13)")
    refused = "This event loop is already running"
    with a_run(loop):
        with pytest.raises(RuntimeError, match=refused):
            loop.run_forever()
        sleep = asyncio.sleep(0)
        with contextlib.closing(sleep):
            with pytest.raises(RuntimeError, match=refused):
                loop.run_until_complete(sleep)
        with pytest.raises(RuntimeError, match="Cannot close a running"):
            loop.close()
        if sys.version_info >= (3, 13):
            with pytest.raises(RuntimeError, match=refused):
                loop._run_forever_setup()


@pytest.mark.parametrize(
    ("method", "text"),
    [
        ("_run_once", "This event loop is already running"),
        ("run_forever", "This event loop is already running"),
        ("close", "Cannot close a running event loop"),
    ],
)
def test_an_iteration_by_hand_refuses_another_run_and_close(
    loop, loop_kind, method, text
):
    if loop_kind == "asyncio":
        pytest.skip("asyncio does it and then fails with an IndexError")
    order = []

    def nested():
        with pytest.raises(RuntimeError, match=text):
            getattr(loop, method)()
        order.append("nested")

    loop.call_soon(nested)
    loop.call_soon(order.append, "same iteration")
    loop._run_once()
    assert order == ["nested", "same iteration"]


def test_signals_reach_a_guests_run(loop):
    seen = []
    loop.add_signal_handler(signal.SIGUSR1, seen.append, 1)
    with a_run(loop):
        signal.raise_signal(signal.SIGUSR1)
        iterate_until(loop, lambda: seen)
    assert loop.remove_signal_handler(signal.SIGUSR1)


def test_a_write_between_iterations_of_a_guest_run_is_sent_at_once(loop):
    near, far = socket.socketpair()
    far.setblocking(False)

    async def connect():
        transport, _ = await loop.create_connection(
            asyncio.Protocol, sock=near
        )
        for _ in range(5):  # that many, to have the first one gathered too
            transport.write(b"ab")
            transport.write(b"cd")
            await asyncio.sleep(0)
        return transport

    with far, a_run(loop):
        task = loop.create_task(connect())
        iterate_until(loop, task.done)
        assert far.recv(100) == b"abcd" * 5
        transport = task.result()
        transport.write(b"one ")
        transport.write(b"two")
        assert far.recv(100) == b"one two"
        transport.close()
        iterate_until(loop, lambda: transport.get_protocol() is None)


@pytest.mark.filterwarnings("ignore::ResourceWarning")
def test_a_guest_may_forget_its_loop(loop_factory):
    loop = loop_factory()
    loop._thread_id = threading.get_ident()
    loop.call_soon(print)
    del loop


def test_an_idle_loop_may_be_set_idle(loop):
    loop._thread_id = None
    assert not loop.is_running()
    loop.run_until_complete(asyncio.sleep(0))


def noting(loop_class, seen):
    """A loop of a class that notes which of its methods are called."""

    class Noting(loop_class):
        def create_task(self, coro, **named):
            seen.append("create_task")
            return super().create_task(coro, **named)

        def run_forever(self):
            seen.append("run_forever")
            super().run_forever()

        def _run_once(self):
            if seen[-1] != "_run_once":
                seen.append("_run_once")
            super()._run_once()

    return Noting()


def test_methods_of_a_subclass_are_called(loop_class):
    seen = [None]
    loop = noting(loop_class, seen)
    with contextlib.closing(loop):
        assert loop.run_until_complete(asyncio.sleep(0.001, 7)) == 7
        assert seen[1:] == ["create_task", "run_forever", "_run_once"]
        loop.call_soon(loop.stop)
        loop.run_forever()
        assert seen[4:] == ["run_forever", "_run_once"]
