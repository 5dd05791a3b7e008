"""What a program puts in the place of the loop's methods is what is called.

Subclasses, the loop itself and asyncio's own Handle are all replaced in by
programs that test, trace or measure.
"""

import asyncio
import contextvars
import functools
import socket
import threading
import time
from unittest import mock

import pytest
from net_helpers import spin
from patience import PATIENCE
from tracers import trace_in_place


async def steps():
    await asyncio.sleep(0)
    return await asyncio.wait_for(asyncio.sleep(0, "done"), PATIENCE)


def test_an_overridden_call_soon_gets_a_handle_for_each_call(loop_class):
    handles = []

    class Tracing(loop_class):
        def call_soon(self, callback, *args, context=None):
            handle = super().call_soon(callback, *args, context=context)
            handles.append(handle)
            return handle

    loop = Tracing()
    assert loop.run_until_complete(steps()) == "done"
    loop.close()
    assert len(handles) >= 3
    assert all(isinstance(handle, asyncio.Handle) for handle in handles)


@pytest.mark.parametrize("count", [0, 1, 6])
def test_a_partial_of_call_soon_passes_its_arguments(loop, count):
    """It passes on the tuple of keywords by which fastloop knows a task."""
    before = tuple(range(count))
    seen = []

    def run(*args):
        seen.append(args[:count])
        callback, *rest = args[count:]
        callback(*rest)

    partial = functools.partial(loop.call_soon, run, *before)
    with mock.patch.object(loop, "call_soon", partial):
        assert loop.run_until_complete(steps()) == "done"
    assert set(seen) == {before}


def test_call_later_calls_an_overridden_call_at(loop_class):
    calls = []

    class Tracing(loop_class):
        def call_at(self, when, callback, *args, context=None):
            handle = super().call_at(when, callback, *args, context=context)
            calls.append((when, callback, args, context))
            return handle

    loop = Tracing()
    context = contextvars.copy_context()
    before = loop.time()
    first = loop.call_later(1000, print, 1, 2, context=context)
    second = loop.call_later(0, print)
    (when, callback, args, given), rest = calls
    assert before + 1000 <= when == first.when() <= loop.time() + 1000
    assert (callback, args, given) == (print, (1, 2), context)
    assert rest == (second.when(), print, (), None)
    assert loop.run_until_complete(steps()) == "done"
    loop.close()
    assert len(calls) == 3


@pytest.mark.parametrize("where", ["class", "loop"])
def test_an_overridden_call_soon_threadsafe_gets_results_of_threads(
    loop_class, where
):
    """Whatever the loop runs in may have to be woken, or the loop itself."""
    calls = []

    def call_soon_threadsafe(self, callback, *args, context=None):
        calls.append(threading.current_thread())
        self._write_to_self()
        return loop_class.call_soon_threadsafe(
            self, callback, *args, context=context
        )

    if where == "class":
        changed = {"call_soon_threadsafe": call_soon_threadsafe}
        loop = type("Waking", (loop_class,), changed)()
    else:
        loop = loop_class()
        waking = functools.partial(call_soon_threadsafe, loop)
        loop.call_soon_threadsafe = waking

    async def main():
        for result in (True, ZeroDivisionError):
            go_on = threading.Event()

            def job(go_on=go_on, result=result):
                assert go_on.wait(10)
                return 1 / 0 if result is ZeroDivisionError else result

            future = loop.run_in_executor(None, job)
            go_on.set()
            (outcome,) = await asyncio.gather(future, return_exceptions=True)
            assert outcome is result or type(outcome) is result

    loop.run_until_complete(main())
    assert len(calls) == 2
    assert threading.main_thread() not in calls
    loop.run_until_complete(loop.shutdown_default_executor())
    loop.close()


@pytest.fixture(params=["replaced", "changed"])
def runs(monkeypatch, request):
    """Replace asyncio.Handle._run; return the handles that go through it."""
    seen = []
    plain = asyncio.Handle._run

    def traced(run, handle):
        seen.append(handle)
        return run(handle)

    if request.param == "changed":
        trace_in_place(monkeypatch, plain, traced)
    else:
        monkeypatch.setattr(
            asyncio.Handle, "_run", lambda self: traced(plain, self)
        )
    return seen


@pytest.mark.parametrize("debug", [False, True])
def test_every_callback_runs_through_a_patched_handle(loop, runs, debug):
    loop.set_debug(debug)
    called = []
    left, right = socket.socketpair()
    with left, right:
        right.send(b"x")
        loop.call_soon(called.append, "soon")
        loop.call_soon_threadsafe(called.append, "threadsafe")
        loop.call_later(0, called.append, "later")
        loop.call_soon(called.append, "cancelled").cancel()
        reader = loop._add_reader(left, loop.stop)
        loop.run_forever()
        loop.remove_reader(left)
    names = {"soon", "threadsafe", "later"}
    assert set(called) == names
    assert reader in runs
    through = {handle._args[0] for handle in runs if handle._args}
    assert names <= through
    assert "cancelled" not in through


async def test_a_run_method_replaced_during_a_run_is_called(loop, monkeypatch):
    """By an application that uvicorn imports in a task."""
    seen = []
    plain = asyncio.Handle._run
    monkeypatch.setattr(
        asyncio.Handle, "_run", lambda self: seen.append(plain(self))
    )
    await spin(lambda: seen)


def test_time_monotonic_itself_is_the_loops_own_clock(loop, monkeypatch):
    """Home Assistant sets it; call_later() takes no slower way then."""
    seen = []
    loop.time = time.monotonic
    if hasattr(loop, "_call_later"):
        monkeypatch.setattr(type(loop), "_call_later", None)
    loop.call_later(0.002, seen.append, "later")
    loop.call_later(0.001, seen.append, "sooner")
    loop.call_later(0.003, loop.stop)
    begin = loop.time()
    loop.run_forever()
    assert loop.time() - begin >= 0.002
    assert seen == ["sooner", "later"]


def test_a_fake_in_the_place_of_time_monotonic_is_no_clock(loop, monkeypatch):
    monkeypatch.setattr(time, "monotonic", lambda: 1000.0)
    loop.time = time.monotonic
    assert loop.call_later(1, print).when() == 1001
