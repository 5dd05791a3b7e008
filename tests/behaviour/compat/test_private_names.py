"""Private names of asyncio's own loop that programs read.

Monitors count what is ready, test suites list the timers a test left behind,
asyncio's own transports ask the selector in their repr, and guests put their
own functions into asyncio.events.
"""

from __future__ import annotations

import asyncio
import selectors
import socket

import pytest


def noted(seen, value):
    seen.append(value)


def test_ready_lists_handles_in_order(loop):
    seen = []
    handles = [loop.call_soon(noted, seen, n) for n in range(3)]
    assert list(loop._ready) == handles
    assert [h._args for h in loop._ready] == [(seen, n) for n in range(3)]
    loop.call_soon(loop.stop)
    loop.run_forever()
    assert seen == [0, 1, 2]
    assert not loop._ready


def test_ready_lists_what_nobody_holds(loop):
    seen = []
    for n in range(3):
        loop.call_soon(noted, seen, n)
    loop.call_soon(lambda *args: seen.append(args), 1, 2, 3, 4, 5, 6)
    first, odd, last, many = list(loop._ready)
    assert first._callback is noted
    assert many._args == (1, 2, 3, 4, 5, 6)
    odd.cancel()
    loop.call_soon(loop.stop)
    loop.run_forever()
    assert seen == [0, 2, (1, 2, 3, 4, 5, 6)]
    assert last._args == (seen, 2)


async def test_ready_lists_the_steps_of_tasks(loop):
    async def count(seen, number):
        for turn in range(3):
            seen.append((turn, number))
            await asyncio.sleep(0)

    seen = []
    tasks = [loop.create_task(count(seen, n)) for n in range(2)]
    assert len(loop._ready) == 2
    await asyncio.sleep(0)
    assert len(loop._ready) == 2
    assert all(isinstance(h, asyncio.Handle) for h in loop._ready)
    await asyncio.gather(*tasks)
    assert seen == [(t, n) for t in range(3) for n in range(2)]


async def test_looking_at_ready_changes_no_order(loop):
    order = []
    future = loop.create_future()
    future.add_done_callback(lambda f: order.append("done"))
    loop.call_soon(order.append, "a")
    future.set_result(None)
    loop.call_soon_threadsafe(order.append, "b")
    loop.call_soon(order.append, "c")
    looked = [h for h in loop._ready if not h.cancelled()]
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    assert len(looked) == 4
    assert order == ["a", "done", "b", "c"]


def test_ready_is_readable_in_debug_mode(loop):
    loop.set_debug(True)
    handle = loop.call_soon(loop.stop)
    assert list(loop._ready) == [handle]
    loop.run_forever()


def test_scheduled_lists_timers(loop):
    late = loop.call_later(1000, print)
    early = loop.call_later(500, print)
    middle = loop.call_at(loop.time() + 700, print)
    assert sorted(loop._scheduled) == [early, middle, late]
    assert loop._scheduled[0] is early
    for handle in list(loop._scheduled):
        handle.cancel()
    assert not any(not h.cancelled() for h in loop._scheduled)


def test_scheduled_forgets_what_has_run(loop, run):
    loop.call_later(0, noted, [], 1)
    run(asyncio.sleep(0.001))
    assert not [h for h in loop._scheduled if h._callback is noted]


def test_selector_tells_what_is_watched(loop):
    ours, theirs = socket.socketpair()
    with ours, theirs:
        loop.add_reader(ours, noted, 1)
        key = loop._selector.get_key(ours)
        assert key.fd == ours.fileno()
        assert key.events == selectors.EVENT_READ
        assert key.data[0]._callback is noted
        assert key.data[1] is None
        loop.add_writer(ours, noted, 2)
        both = selectors.EVENT_READ | selectors.EVENT_WRITE
        assert loop._selector.get_key(ours.fileno()).events == both
        assert loop._selector.get_map()[ours.fileno()].data[1]._args == (2,)
        loop.remove_reader(ours)
        loop.remove_writer(ours)
        with pytest.raises(KeyError):
            loop._selector.get_key(ours)
        assert ours.fileno() not in loop._selector.get_map()


def test_fastloop_polls_by_itself(loop, loop_kind):
    if loop_kind == "asyncio":
        assert loop._selector.select(0) == []
        return
    with pytest.raises(RuntimeError):
        loop._selector.select(0)


def test_descriptors_of_a_closed_loop(loop_factory):
    loop = loop_factory()
    assert loop._internal_fds == 1
    assert loop._selector is not None
    loop.close()
    assert loop._internal_fds == 0
    assert loop._selector is None
    assert loop._ssock is None
    assert loop._csock is None


async def test_repr_of_transports_of_asyncio(loop):
    transport, _ = await loop.create_datagram_endpoint(
        asyncio.DatagramProtocol, local_addr=("127.0.0.1", 0)
    )
    open_one = repr(transport)
    transport.close()
    await asyncio.sleep(0)
    assert "fd=" in open_one
    assert "closed" in repr(transport)


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


def test_server_of_what_has_no_descriptor(loop, run):
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
