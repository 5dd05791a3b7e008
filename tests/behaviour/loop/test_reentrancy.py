"""What is called back in the middle of the loop's own work.

A finaliser, a weak reference's callback, an object's ``fileno()`` or an
iteration run by hand may close the loop, run it or cancel the object in use.
"""

from __future__ import annotations

import asyncio
import gc
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


def test_a_weak_reference_to_a_dying_handle_closes_the_loop(
    loop: Loop,
) -> None:
    handle = loop.call_later(0, int)
    ref = weakref.ref(handle, lambda _: loop.close())
    soon = loop.call_soon(int)
    other = weakref.ref(soon, lambda _: loop.close())
    del soon, handle
    loop.close()
    assert (ref(), other()) == (None, None)


# -- descriptors ------------------------------------------------------------


def test_fileno_closes_the_loop(
    loop: Loop, pair: tuple[socket.socket, socket.socket]
) -> None:
    with pytest.raises(RuntimeError, match="Event loop is closed"):
        loop.add_reader(_Calls(pair[0], loop.close), int)


def test_fileno_closes_the_loop_in_remove_reader(
    loop: Loop, pair: tuple[socket.socket, socket.socket]
) -> None:
    loop.add_reader(pair[0], int)
    assert not loop.remove_reader(_Calls(pair[0], loop.close))


@pytest.mark.parametrize("what", [KeyboardInterrupt, ZeroDivisionError])
def test_fileno_raises(
    loop: Loop,
    pair: tuple[socket.socket, socket.socket],
    what: type[BaseException],
) -> None:
    def fail() -> None:
        raise what("from fileno")

    with pytest.raises(what, match="from fileno"):
        loop.add_reader(_Calls(pair[0], fail), int)


class _Closes:
    """Closes a loop when it dies."""

    def __init__(self, loop: Loop) -> None:
        self.close = loop.close

    def __call__(self) -> None:
        pass

    def __del__(self) -> None:
        self.close()


@only_fastloop
def test_a_watcher_that_is_evicted_closes_the_loop(
    loop_factory: Callable[[], Loop],
    pair: tuple[socket.socket, socket.socket],
) -> None:
    """asyncio refuses the transport's descriptor at another moment."""
    for make in ("_make_socket_transport", "_start_serving"):
        loop = loop_factory()
        loop.add_reader(pair[0], _Closes(loop))
        with pytest.raises(RuntimeError, match="Event loop is closed"):
            if make == "_start_serving":
                loop._start_serving(asyncio.Protocol, pair[0])  # type: ignore[attr-defined]
            else:
                loop._make_socket_transport(pair[0], asyncio.Protocol())  # type: ignore[attr-defined]
        assert loop.is_closed()


# -- the GC -----------------------------------------------------------------


def test_gc_cancels_the_handle_that_is_visited(
    loop: Loop,
) -> None:
    """Before 3.12 any allocation may run the GC at once."""

    class Cancels:
        def __init__(self) -> None:
            self.me = self

        def __del__(self) -> None:
            handle.cancel()
            for _ in range(1000):
                loop.call_soon(int)

    handle = loop.call_soon(int, object(), object())
    held = [(number, number) for number in range(5000)]
    gc.collect()
    before = gc.get_threshold()
    Cancels()
    gc.set_threshold(1, 1, 1)
    try:
        args = handle._args
    finally:
        gc.set_threshold(*before)
    gc.collect()
    assert handle.cancelled()
    assert args is None or len(args) == 2
    assert len(held) == 5000
