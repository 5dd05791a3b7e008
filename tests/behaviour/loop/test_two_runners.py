"""One thread at a time runs a loop, or closes it; the other gets an error."""

from __future__ import annotations

import sys
import threading

import pytest
from builds import HAS_GIL
from patience import PATIENCE

ROUNDS = 50


@pytest.fixture(autouse=True)
def _asyncio_needs_the_gil(loop_kind):
    if loop_kind == "asyncio" and not HAS_GIL:
        pytest.skip("asyncio's own loop looks first and marks itself later")


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
