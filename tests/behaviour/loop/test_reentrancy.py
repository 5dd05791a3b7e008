"""What is called back in the middle of the loop's own work.

A finaliser, a weak reference's callback, an object's ``fileno()`` or an
iteration run by hand may close the loop, run it or cancel the object in use.
"""

from __future__ import annotations

import asyncio
import socket
import weakref
from collections.abc import Callable
from typing import Any

import pytest
from builds import FREE_THREADED

Loop = asyncio.AbstractEventLoop
only_fastloop = pytest.mark.parametrize(
    "loop_kind", ["fastloop"], indirect=True
)


class _Calls:
    """Something with a fileno() that does something first."""

    def __init__(self, sock: socket.socket, first: Callable[[], Any]) -> None:
        self.sock = sock
        self.first = first

    def fileno(self) -> int:
        self.first()
        return self.sock.fileno()


# -- iterations by hand -----------------------------------------------------


@only_fastloop
def test_an_iteration_inside_an_iteration_is_refused(loop: Loop) -> None:
    """asyncio runs the inner one and then fails with an IndexError."""
    order: list[Any] = []

    def nested() -> None:
        loop.call_soon(order.append, "next iteration")
        with pytest.raises(RuntimeError, match="already running"):
            loop._run_once()  # type: ignore[attr-defined]
        order.append("nested")

    loop.call_soon(nested)
    loop.call_soon(order.append, "same iteration")
    loop._run_once()  # type: ignore[attr-defined]
    assert order == ["nested", "same iteration"]
    loop._run_once()  # type: ignore[attr-defined]
    assert order == ["nested", "same iteration", "next iteration"]


@only_fastloop
def test_a_loop_is_not_closed_or_run_inside_an_iteration(loop: Loop) -> None:
    """asyncio closes it and then fails with an IndexError."""
    refused: list[str] = []

    def attempt(method: Callable[[], Any]) -> None:
        with pytest.raises(RuntimeError) as caught:
            method()
        refused.append(str(caught.value))

    loop.call_soon(attempt, loop.close)
    loop.call_soon(attempt, loop.run_forever)
    loop._run_once()  # type: ignore[attr-defined]
    assert refused == [
        "Cannot close a running event loop",
        "This event loop is already running",
    ]
    assert not loop.is_closed()


@only_fastloop
@pytest.mark.skipif(
    FREE_THREADED,
    reason="without a GIL the queue owns the handle: it does not die",
)
def test_a_weak_reference_to_a_dying_handle_runs_an_iteration(
    loop: Loop,
) -> None:
    ran: list[int] = []
    handle = loop.call_soon(ran.append, 1)
    ref = weakref.ref(handle, lambda _: loop._run_once())  # type: ignore[attr-defined]
    del handle
    assert ref() is None
    assert ran == [1]


# -- descriptors ------------------------------------------------------------


def test_fileno_closes_the_loop(
    loop: Loop, pair: tuple[socket.socket, socket.socket]
) -> None:
    with pytest.raises(RuntimeError, match="Event loop is closed"):
        loop.add_reader(_Calls(pair[0], loop.close), int)


# -- the GC -----------------------------------------------------------------
