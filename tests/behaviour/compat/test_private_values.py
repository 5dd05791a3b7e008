"""Private attributes of loops and handles, and what they say.

Debuggers, monitors and test suites read them, and guests put their own
functions and classes into asyncio; asyncio's loop is the measure.
"""

import asyncio
import contextvars
import selectors

import pytest
from loop_helpers import nothing

# -- its queues and its selector ---------------------------------------------
#
# asyncio's are its own.  fastloop's _ready has only a length, _scheduled is a
# copy, and the selector is a view.


def test_ready_tells_how_many_callbacks_are_ready(loop, iterate):
    ready = loop._ready
    assert not ready
    for _ in range(4):
        loop.call_soon(nothing)
    assert len(loop._ready) == len(ready) == 4
    iterate()
    assert not ready


def test_scheduled_shows_the_timers(loop):
    timers = [loop.call_later(60 - n, nothing) for n in range(3)]
    loop.kept_twice = timers[1]
    assert loop._scheduled[0] is timers[2]
    assert sorted(loop._scheduled) == timers[::-1]


def test_the_selectors_map_shows_registrations(loop, pair):
    left, right = pair
    number = left.fileno()
    loop.add_reader(number, nothing, 1)
    loop.add_writer(right, nothing, 2)
    found = loop._selector.get_map()[number]
    assert (found.fileobj, found.fd) == (number, number)
    assert found.events == selectors.EVENT_READ
    assert (found.data[0]._args, found.data[1]) == ((1,), None)
    found = loop._selector.get_key(right)
    assert (found.fileobj, found.fd) == (right, right.fileno())
    assert found.events == selectors.EVENT_WRITE
    assert found.data[1]._args == (2,)
    loop.add_reader(right, nothing)
    both = selectors.EVENT_READ | selectors.EVENT_WRITE
    assert loop._selector.get_key(right).events == both
    loop.remove_reader(number)
    loop.remove_reader(right)
    loop.remove_writer(right)
    assert number not in loop._selector.get_map()
    with pytest.raises(KeyError):
        loop._selector.get_key(right)


@pytest.mark.parametrize("jumps", [True, False])
async def test_a_replaced_select_is_called(loop, monkeypatch, jumps):
    """aiotools' VirtualClock jumps over a wait, other tools measure it."""
    asked, select = [], loop._selector.select

    def ask(timeout):
        asked.append(timeout)
        return select(0 if jumps else timeout)

    with monkeypatch.context() as patch:
        if jumps:
            patch.setattr(loop, "time", lambda: sum(filter(None, asked)))
        patch.setattr(loop._selector, "select", ask)
        await asyncio.sleep(10 if jumps else 0.01)
    number = len(asked)
    assert number > 0
    await asyncio.sleep(0.01)
    assert len(asked) == number


def test_a_subclass_may_pass_selector_none(loop_class):
    loop_class(None).close()
    loop_class(selector=None).close()


@pytest.mark.parametrize("loop_kind", ["fastloop"], indirect=True)
def test_a_selector_is_refused(loop, loop_class):
    """The core would never ask it."""
    with pytest.raises(AttributeError, match="_selector"):
        loop._selector = loop._selector
    with pytest.raises(TypeError, match="selector"):
        loop_class(loop._selector)


# -- handles -----------------------------------------------------------------


@pytest.mark.parametrize("way", ["call_soon", "call_soon_threadsafe"])
def test_private_attributes_show_a_handles_call(loop, iterate, way):
    context = contextvars.copy_context()
    seen = []
    handle = getattr(loop, way)(seen.append, "x", context=context)
    assert handle._callback == seen.append
    assert handle._args == ("x",)
    assert handle._context is context
    assert handle._loop is loop
    assert handle._cancelled is False
    assert handle._source_traceback is None
    assert handle._repr is None
    name, call = handle._repr_info()
    assert name in ("Handle", "_ThreadSafeHandle")
    assert "append" in call
    handle._run()
    handle.cancel()
    assert handle._cancelled is True
    assert handle._callback is None
    assert handle._args is None
    iterate()
    assert seen == ["x"]


# -- what programs put in its place -------------------------------------------


# As programs that nest loops put in classes in Python.
class OtherTask(asyncio.tasks._PyTask):
    pass


class OtherFuture(asyncio.futures._PyFuture):
    pass


def test_replaced_classes_of_tasks_and_futures_are_used(loop, monkeypatch):
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
        patch.setattr(asyncio.tasks, "Task", OtherTask)
        patch.setattr(asyncio.futures, "Future", OtherFuture)
        before = loop.create_future()
        assert type(before) is OtherFuture
        assert before.get_loop() is loop
        found = loop.run_until_complete(main())
    assert found == [OtherTask, OtherTask, OtherFuture]
