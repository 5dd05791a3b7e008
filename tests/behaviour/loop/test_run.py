"""run_forever, run_until_complete and stop, and the loop after each."""

import asyncio
import gc
import inspect
import socket
import sys
import types

import pytest


async def answers():
    return 42


class Awaitable:
    def __await__(self):
        yield from asyncio.sleep(0).__await__()
        return 42


@types.coroutine
def generator_coroutine():
    yield from asyncio.sleep(0).__await__()
    return 42


async def awaits_a_generator_coroutine():
    return await generator_coroutine()


def future_that_will_be_done(loop):
    future = loop.create_future()
    loop.call_soon(future.set_result, 42)
    return future


@pytest.mark.parametrize(
    "make",
    [
        lambda loop: answers(),
        lambda loop: loop.create_task(answers()),
        lambda loop: Awaitable(),
        lambda loop: awaits_a_generator_coroutine(),
        future_that_will_be_done,
    ],
    ids=["coroutine", "task", "awaitable", "generator coroutine", "future"],
)
def test_run_until_complete_returns_the_result(loop, make):
    what = make(loop)
    assert loop.run_until_complete(what) == 42
    if asyncio.isfuture(what):
        assert loop.run_until_complete(what) == 42


def test_run_until_complete_raises_the_exception(loop):
    async def main():
        raise ZeroDivisionError("mine")

    with pytest.raises(ZeroDivisionError, match="mine"):
        loop.run_until_complete(main())


def test_the_main_task_is_known_by_asyncios_callback(loop):
    """anyio looks for it, and keeps its threads as long as that task runs."""

    async def main():
        return asyncio.current_task()._callbacks

    found = [callback for callback, _ in loop.run_until_complete(main())]
    assert asyncio.base_events._run_until_complete_cb in found


def test_parameters_may_be_named(loop):
    here, there = socket.socketpair()
    with here, there:
        loop.add_reader(fd=here, callback=loop.stop)
        loop.add_writer(here, callback=loop.stop)
        assert loop.remove_reader(fd=here) is True
        assert loop.remove_writer(fd=here) is True
    assert loop.run_until_complete(future=asyncio.sleep(0, 3)) == 3
    for call in (
        loop.run_until_complete,
        loop.remove_reader,
        loop.add_reader,
    ):
        for wrong in ({}, {"other": 1}):
            with pytest.raises(TypeError):
                call(**wrong)
        with pytest.raises(TypeError):
            call(1, fd=2, future=2)


@pytest.mark.parametrize("bad", [None, 1, "coro", print, object()])
def test_run_until_complete_refuses_objects_that_cannot_be_awaited(loop, bad):
    with pytest.raises(TypeError):
        loop.run_until_complete(bad)
    assert loop.run_until_complete(asyncio.sleep(0, 1)) == 1


def test_run_until_complete_of_a_plain_generator(loop):
    def generator():
        yield
        return 1

    if asyncio.iscoroutine(generator()):  # up to 3.11
        assert loop.run_until_complete(generator()) == 1
    else:
        with pytest.raises(TypeError):
            loop.run_until_complete(generator())


def test_future_of_another_loop_is_refused(loop_factory):
    mine, other = loop_factory(), loop_factory()
    try:
        future = other.create_future()
        with pytest.raises(ValueError, match="loop"):
            mine.run_until_complete(future)
    finally:
        mine.close()
        other.close()


async def test_nested_in_the_same_loop(loop):
    """It is refused, and makes no task."""
    coro = answers()
    before = asyncio.all_tasks(loop)
    with pytest.raises(RuntimeError, match="already running"):
        loop.run_until_complete(coro)
    coro.close()
    with pytest.raises(RuntimeError, match="already running"):
        loop.run_forever()
    assert asyncio.all_tasks(loop) == before


def test_another_loop_inside_a_running_one(loop_factory):
    first, second = loop_factory(), loop_factory()

    async def inner():
        pass

    async def main():
        coro = inner()
        with pytest.raises(
            RuntimeError, match="Cannot run the event loop while another"
        ):
            second.run_until_complete(coro)
        coro.close()
        with pytest.raises(RuntimeError, match="while another"):
            second.run_forever()

    try:
        first.run_until_complete(main())
        assert not second.is_running()
        assert second.run_until_complete(asyncio.sleep(0, 1)) == 1
    finally:
        first.close()
        second.close()


def test_run_forever_from_another_thread_while_running(
    loop, loop_kind, in_thread
):
    if loop_kind == "asyncio" and sys.version_info >= (3, 13):
        pytest.skip("the refused run ends asyncio's running one (3.13+)")
    raised = []

    def other():
        try:
            loop.run_forever()
        except RuntimeError as exc:
            raised.append(str(exc))
        loop.call_soon_threadsafe(loop.stop)

    loop.call_soon(lambda: in_thread(other))
    loop.run_forever()
    assert raised == ["This event loop is already running"]


def test_a_loop_may_run_in_another_thread_each_time(loop, in_thread):
    seen = []

    def runner():
        seen.append(loop.run_until_complete(asyncio.sleep(0.001, 1)))

    for _ in range(3):
        in_thread(runner).join()
    assert loop.run_until_complete(asyncio.sleep(0, 2)) == 2
    assert seen == [1, 1, 1]


def test_done_callback_of_run_until_complete_is_removed(loop):
    future = loop.create_future()
    loop.call_soon(loop.stop)
    with pytest.raises(RuntimeError):
        loop.run_until_complete(future)
    future.set_result(None)
    seen = []

    async def main():
        await asyncio.sleep(0.001)
        seen.append(1)

    loop.run_until_complete(main())
    assert seen == [1]


def test_a_done_future_still_lets_other_callbacks_run(loop):
    seen = []
    future = loop.create_future()
    future.set_result(5)
    loop.call_soon(seen.append, 1)
    assert loop.run_until_complete(future) == 5
    assert seen == [1]


def test_stop_is_forgotten_after_the_run(loop):
    loop.stop()
    loop.stop()
    loop.run_forever()
    seen = []
    loop.call_later(0.002, lambda: (seen.append(1), loop.stop()))
    loop.run_forever()
    assert seen == [1]


def test_stop_does_not_wait(loop):
    far = loop.call_later(1000, print)
    loop.stop()
    loop.run_forever()
    far.cancel()


@pytest.mark.parametrize("kind", [KeyboardInterrupt, SystemExit])
@pytest.mark.parametrize(
    "way", ["soon", "later", "threadsafe", "reader", "task"]
)
def test_exit_exceptions_leave_the_run(loop, pair, kind, way):
    def leave():
        raise kind("leaving")

    async def leave_a_task():
        await asyncio.sleep(0)
        loop.call_soon(seen.append, 1)
        leave()

    left, right = pair
    seen = []
    if way == "soon":
        loop.call_soon(leave)
        loop.call_soon(seen.append, 1)
    elif way == "later":
        loop.call_later(0.001, leave)
    elif way == "threadsafe":
        loop.call_soon_threadsafe(leave)
    elif way == "reader":
        loop.add_reader(left, leave)
        right.send(b"x")
    with pytest.raises(kind, match="leaving"):
        if way == "task":
            loop.run_until_complete(leave_a_task())
        else:
            loop.run_forever()
    loop.remove_reader(left)
    assert not loop.is_running()
    assert asyncio._get_running_loop() is None
    assert loop.run_until_complete(asyncio.sleep(0.001, 5)) == 5
    assert seen == [1] * (way in ("soon", "task"))


def test_generator_exit_and_others_do_not_leave(loop, reports):
    class Odd(BaseException):
        pass

    def fail(kind):
        raise kind

    loop.call_soon(fail, GeneratorExit)
    loop.call_soon(fail, Odd)
    loop.call_soon(fail, asyncio.CancelledError)
    loop.call_soon(fail, StopIteration)
    loop.call_soon(loop.stop)
    loop.run_forever()
    kinds = [type(c["exception"]) for c in reports]
    assert kinds == [
        GeneratorExit,
        Odd,
        asyncio.CancelledError,
        StopIteration,
    ]


def test_deep_recursion_in_a_callback_is_an_ordinary_error(loop, reports):
    def recurse():
        recurse()

    loop.call_soon(recurse)
    loop.call_soon(loop.stop)
    loop.run_forever()
    assert isinstance(reports[0]["exception"], RecursionError)


def test_loop_left_unreferenced_while_running(loop_factory):
    """The only reference to a running loop may be the run itself."""
    seen = []

    def callback(holder):
        loop = holder.pop()
        loop.call_soon(loop.stop)
        seen.append(loop)

    def go():
        loop = loop_factory()
        loop.call_soon(callback, [loop])
        loop.run_forever()

    go()
    gc.collect()
    (loop,) = seen
    assert not loop.is_running()
    loop.close()


def test_a_coroutine_that_gets_no_task_is_closed(loop):
    def factory(loop, coro, **kwargs):
        raise RuntimeError("no task")

    async def main():
        pass

    coro = main()
    loop.set_task_factory(factory)
    with pytest.raises(RuntimeError, match="no task"):
        loop.run_until_complete(coro)
    loop.set_task_factory(None)
    assert inspect.getcoroutinestate(coro) == inspect.CORO_CLOSED


def test_ctrl_c_at_the_end_of_a_run_is_raised(loop, monkeypatch):
    """The run has ended all the same, and the loop can run again."""
    hooks = sys.get_asyncgen_hooks()
    track = loop._set_coroutine_origin_tracking

    def interrupted(on):
        track(on)
        if not on:
            raise KeyboardInterrupt

    loop.set_debug(True)
    with monkeypatch.context() as patch:
        patch.setattr(loop, "_set_coroutine_origin_tracking", interrupted)
        with pytest.raises(KeyboardInterrupt):
            loop.run_until_complete(asyncio.sleep(0))
    sys.set_asyncgen_hooks(*hooks)  # asyncio leaves its own
    assert not loop.is_running()
    assert loop.run_until_complete(asyncio.sleep(0, 5)) == 5
