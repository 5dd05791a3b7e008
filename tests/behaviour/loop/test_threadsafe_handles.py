"""Handles of call_soon_threadsafe, cancelled while their callback runs."""

from __future__ import annotations

import asyncio
import sys
import threading
from collections.abc import Callable
from typing import Any

import pytest

Loop = asyncio.AbstractEventLoop

waits = pytest.mark.skipif(
    sys.version_info < (3, 14), reason="these handles have a lock from 3.14 on"
)
#: How long what must wait is watched while it waits, in seconds.
WATCHED = 0.05


class _Callback:
    """A callback that lets another thread do something, and ends after."""

    def __init__(self, loop: Loop, act: Callable[[Any], Any]) -> None:
        self.loop = loop
        self.order: list[Any] = []
        self.entered = threading.Event()
        self.acting = threading.Event()
        self.acted = threading.Event()
        self.handle: Any = None

        def other() -> None:
            self.entered.wait()
            self.acting.set()
            result = act(self)
            self.order.append(("acted", result))
            self.acted.set()

        self.thread = threading.Thread(target=other)

    def __call__(self) -> None:
        self.entered.set()
        self.acting.wait()
        self.order.append(self.acted.wait(WATCHED))
        self.order.append("over")
        self.loop.stop()

    def run(self) -> list[Any]:
        self.thread.start()
        self.loop.run_forever()
        self.thread.join()
        return self.order


def test_cancelling_another_handle_does_not_wait(loop: Loop) -> None:
    ran: list[int] = []
    callback = _Callback(loop, lambda self: other.cancel())
    callback.handle = loop.call_soon_threadsafe(callback)
    other = loop.call_soon_threadsafe(ran.append, 1)
    assert callback.run() == [("acted", None), True, "over"]
    assert ran == []


@waits
def test_cancel_waits_while_another_loop_runs_the_callback(
    loop: Loop, loop_factory: Callable[[], Any]
) -> None:
    """Programs with nested loops move handles by this private method."""
    made_by = loop_factory()
    callback = _Callback(loop, lambda self: self.handle.cancel())
    callback.handle = made_by.call_soon_threadsafe(callback)
    loop._add_callback(callback.handle)  # type: ignore[attr-defined]
    assert callback.run() == [False, "over", ("acted", None)]
    made_by.close()


@pytest.mark.reports
def test_a_callback_that_raises_ends_the_wait(loop: Loop) -> None:
    def fail() -> None:
        loop.stop()
        raise ZeroDivisionError

    handle = loop.call_soon_threadsafe(fail)
    loop.run_forever()
    thread = threading.Thread(target=handle.cancel)
    thread.start()
    thread.join()
    assert handle.cancelled()
