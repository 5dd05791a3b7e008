"""The private attributes of a loop that debuggers and test tools look at.

asyncio's are its own queues; fastloop's are copies of them, made when asked
for, with the same handles in them.
"""

from __future__ import annotations

import asyncio
import gc
import os
import selectors
import socket

import pytest


def nothing(*args):
    pass


def test_ready_handles(loop, iterate):
    seen = []
    first = loop.call_soon(seen.append, 1)
    loop.call_soon(seen.append, 2)
    assert len(loop._ready) == 2
    assert next(iter(loop._ready)) is first
    assert all(isinstance(h, asyncio.Handle) for h in loop._ready)
    iterate()
    assert seen == [1, 2]
    assert not loop._ready


def test_a_ready_handle_without_other_references(loop, iterate):
    """It shows its call, and can be cancelled."""
    seen = []
    for number in range(4):
        loop.call_soon(seen.append, number)
    handles = list(loop._ready)
    assert [h._args for h in handles] == [(n,) for n in range(4)]
    assert {h._callback for h in handles} == {seen.append}
    handles[1].cancel()
    handles[3].cancel()
    assert handles[3].cancelled()
    # What the loop keeps is the handle it showed.
    assert list(loop._ready)[2] is handles[2]
    del handles
    gc.collect()
    iterate()
    assert seen == [0, 2]


@pytest.mark.parametrize("size", [0, 4, 5, 6, 9])
def test_introspection_has_no_side_effects(loop, iterate, size):
    seen = []
    args = tuple(range(size))
    loop.call_soon(lambda *given: seen.append(given), *args)
    loop.call_soon_threadsafe(lambda *given: seen.append(given), *args)
    assert [h._args for h in loop._ready] == [args, args]
    iterate()
    assert seen == [args, args]


def test_ready_within_a_batch(loop, iterate):
    """What was run is gone, what is to come is there."""
    lengths = []
    for _ in range(3):
        loop.call_soon(lambda: lengths.append(len(loop._ready)))
    iterate()
    # And the stop that ends the iteration.
    assert lengths == [3, 2, 1]


async def test_transports_about_to_start(loop):
    """The loop's own work counts as ready too."""
    near, far = socket.socketpair()
    near.setblocking(False)
    with far:
        before = len(loop._ready)
        transport = loop._make_socket_transport(near, asyncio.Protocol())
        assert len(loop._ready) > before
        await asyncio.sleep(0)
        transport.abort()
        await asyncio.sleep(0)


def test_scheduled_timers(loop, iterate):
    late = loop.call_later(100, nothing)
    soon = loop.call_later(50, nothing)
    later = loop.call_at(loop.time() + 200, nothing, "argument")
    assert sorted(loop._scheduled) == [soon, late, later]
    assert loop._scheduled[0] is soon
    assert {h.when() for h in loop._scheduled} == {
        h.when() for h in (late, soon, later)
    }
    late.cancel()
    assert [h for h in sorted(loop._scheduled) if not h.cancelled()] == [
        soon,
        later,
    ]
    for handle in loop._scheduled:
        handle.cancel()
    iterate()
    assert all(h.cancelled() for h in loop._scheduled)


def test_timers_of_every_order(loop):
    """However they are kept inside."""
    handles = [
        loop.call_later(100 + n * 37 % 50, nothing, n) for n in range(50)
    ]
    handles += [loop.call_later(300, nothing) for _ in range(20)]
    assert set(loop._scheduled) == set(handles)
    assert loop._scheduled[0] is min(handles)
    for handle in handles:
        handle.cancel()


def test_the_selectors_map(loop):
    near, far = os.pipe()

    class Object:
        def fileno(self):
            return far

    owner = Object()
    loop.add_reader(near, nothing, 1)
    loop.add_writer(owner, nothing, 2)
    found = loop._selector.get_map()
    reader = found[near]
    assert (reader.fd, reader.events) == (near, selectors.EVENT_READ)
    assert reader.fileobj == near
    assert reader.data[0]._args == (1,)
    assert reader.data[1] is None
    writer = loop._selector.get_key(owner)
    assert (writer.fd, writer.events) == (far, selectors.EVENT_WRITE)
    assert writer.fileobj is owner
    assert writer.data[1]._args == (2,)
    both = selectors.EVENT_READ | selectors.EVENT_WRITE
    with socket.socket() as sock:
        loop.add_reader(sock, nothing)
        loop.add_writer(sock, nothing)
        assert loop._selector.get_key(sock.fileno()).events == both
        loop.remove_reader(sock)
        loop.remove_writer(sock)
    loop.remove_reader(near)
    loop.remove_writer(owner)
    assert near not in loop._selector.get_map()
    with pytest.raises(KeyError):
        loop._selector.get_key(owner)
    os.close(near)
    os.close(far)


def test_a_closed_loop_has_nothing(loop_factory):
    loop = loop_factory()
    loop.call_soon(nothing)
    loop.call_later(1, nothing)
    assert loop._internal_fds == 1
    assert loop._selector is not None
    loop.close()
    assert not loop._ready
    assert not loop._scheduled
    assert loop._internal_fds == 0
    assert loop._selector is loop._ssock is loop._csock is None


def test_fastloops_are_read_only(loop, loop_kind):
    """A change that would be lost is refused."""
    if loop_kind == "asyncio":
        loop._ready.clear()
        assert loop._selector.select(0) == []
        return
    with pytest.raises(AttributeError):
        loop._ready.clear()
    for name in ("register", "unregister", "modify", "select"):
        with pytest.raises(RuntimeError, match="only to look|no selector"):
            getattr(loop._selector, name)(0)


def test_ready_is_readable_in_debug_mode(loop):
    loop.set_debug(True)
    handle = loop.call_soon(loop.stop)
    assert list(loop._ready) == [handle]
    loop.run_forever()


def test_scheduled_has_no_timers_that_have_run(loop, run):
    loop.call_later(0, nothing)
    run(asyncio.sleep(0.001))
    assert not [h for h in loop._scheduled if h._callback is nothing]
