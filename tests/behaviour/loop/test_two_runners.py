"""Two threads run, close or wake one loop: the wrong one gets an error."""

from __future__ import annotations

import asyncio
import sys
import threading

import pytest
from patience import PATIENCE

ROUNDS = 50

marks_itself_late = pytest.mark.asyncio_needs_gil(
    "its own loop looks first and marks itself later"
)


def race(one, other):
    """What two calls made at once raised, in no order."""
    barrier = threading.Barrier(2, timeout=PATIENCE)
    raised: list[BaseException] = []

    def call(function):
        barrier.wait()
        try:
            function()
        except RuntimeError as exc:
            raised.append(exc)

    thread = threading.Thread(target=call, args=(other,))
    thread.start()
    call(one)
    thread.join(PATIENCE)
    assert not thread.is_alive()
    return [str(exc) for exc in raised]


@marks_itself_late
def test_two_threads_run_one_loop(loop_factory, loop_kind):
    loop = loop_factory()
    hooks = sys.get_asyncgen_hooks()

    def run():
        try:
            loop.run_forever()
        except RuntimeError:
            loop.call_soon_threadsafe(loop.stop)
            raise

    for _ in range(ROUNDS):
        assert race(run, run) == ["This event loop is already running"]
        assert not loop.is_running()
    loop.close()
    if loop_kind == "asyncio":  # keeps the wrong thread's if both run at once
        sys.set_asyncgen_hooks(*hooks)


def test_two_threads_run_and_close_one_loop(loop_factory, loop_kind):
    if loop_kind == "asyncio":
        pytest.skip("asyncio's own loop hangs, or leaks its selector")
    for _ in range(ROUNDS):
        loop = loop_factory()

        def close(loop=loop):
            try:
                loop.close()
            except RuntimeError:
                loop.call_soon_threadsafe(loop.stop)
                raise

        (said,) = race(close, loop.run_forever)
        assert said in (
            "Cannot close a running event loop",
            "Event loop is closed",
        )
        loop.close()


def test_threads_wake_and_ask_a_loop_that_is_closed_meanwhile(loop_factory):
    for _ in range(20):
        loop = loop_factory()
        begun, over = threading.Event(), threading.Event()
        faults = []

        def disturb(loop=loop, begun=begun, over=over, faults=faults):
            while not over.is_set():
                try:
                    loop._write_to_self()
                    handle = loop.call_soon_threadsafe(int)
                    handle.cancel()
                    repr(loop)
                except RuntimeError as exc:
                    if str(exc) != "Event loop is closed":
                        faults.append(exc)
                except BaseException as exc:
                    faults.append(exc)
                begun.set()

        threads = [threading.Thread(target=disturb) for _ in range(2)]
        for thread in threads:
            thread.start()
        begun.wait()
        loop.run_until_complete(asyncio.sleep(0))
        loop.close()
        over.set()
        for thread in threads:
            thread.join()
        assert faults == []
