"""Private names of asyncio's own loop that programs read.

Monitors count what is ready, test suites list the timers a test left behind,
asyncio's own transports ask the selector in their repr, and guests put their
own functions into asyncio.events.
"""

from __future__ import annotations

import asyncio
import socket

import pytest


def noted(seen, value):
    seen.append(value)


def test_ready_is_readable_in_debug_mode(loop):
    loop.set_debug(True)
    handle = loop.call_soon(loop.stop)
    assert list(loop._ready) == [handle]
    loop.run_forever()


def test_scheduled_has_no_timers_that_have_run(loop, run):
    loop.call_later(0, noted, [], 1)
    run(asyncio.sleep(0.001))
    assert not [h for h in loop._scheduled if h._callback is noted]


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


def test_server_of_an_object_without_a_descriptor(loop, run):
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


def test_cancelled_method_of_another_handle_is_not_called(loop):
    """asyncio reads the attribute."""

    class Handle(asyncio.Handle):
        def cancelled(self):
            raise AssertionError

    seen = []
    loop._add_callback(Handle(seen.append, (1,), loop))
    loop.call_soon(loop.stop)
    loop.run_forever()
    assert seen == [1]


def test_exception_of_another_handles_run_ends_the_run(loop):
    class Handle(asyncio.Handle):
        def _run(self):
            raise ValueError("of _run")

    seen = []
    loop._add_callback(Handle(print, (), loop))
    loop.call_soon(seen.append, 1)
    with pytest.raises(ValueError, match="of _run"):
        loop.run_forever()
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


def test_a_handle_of_another_loop_is_run(loop, loop_factory):
    other = loop_factory()
    seen = []
    handle = other.call_soon(seen.append, 1)
    loop._add_callback(handle)
    loop.call_soon(loop.stop)
    loop.run_forever()
    assert seen == [1]
    other.close()
