"""create_task: factories by version, names, eager starts, running tasks."""

import asyncio
import contextvars
import gc
import sys
import weakref

import pytest

since_312 = pytest.mark.skipif(
    sys.version_info < (3, 12), reason="eager tasks are new in 3.12"
)
since_314 = pytest.mark.skipif(
    sys.version_info < (3, 14), reason="create_task passes on new in 3.14"
)


async def five():
    return 5


def test_create_task_makes_asyncios_task(loop):
    task = loop.create_task(five())
    assert type(task) is asyncio.Task
    assert task.get_loop() is loop
    assert loop.run_until_complete(task) == 5


def test_another_loop_counts_as_running(loop, loop_factory):
    other = loop_factory()

    async def answer():
        return 42

    async def main():
        asyncio._set_running_loop(other)
        try:
            future = loop.create_future()
            task = loop.create_task(answer())
            named = loop.create_task(answer(), name="named")
        finally:
            asyncio._set_running_loop(loop)
        assert future.get_loop() is loop
        assert task.get_loop() is named.get_loop() is loop
        assert await task == await named == 42
        asyncio._set_running_loop(None)
        try:
            assert loop.create_future().get_loop() is loop
            task = loop.create_task(answer())
        finally:
            asyncio._set_running_loop(loop)
        assert await task == 42

    try:
        loop.run_until_complete(main())
    finally:
        other.close()


def test_name(loop):
    task = loop.create_task(five(), name="mine")
    assert task.get_name() == "mine"
    other = loop.create_task(five())
    assert other.get_name().startswith("Task-")
    number = loop.create_task(five(), name=17)
    assert number.get_name() == "17"
    loop.run_until_complete(asyncio.gather(task, other, number))


def test_context(loop):
    var = contextvars.ContextVar("var", default="outside")
    context = contextvars.copy_context()

    async def main():
        value = var.get()
        var.set("inside")
        await asyncio.sleep(0)
        return value, var.get()

    context.run(var.set, "given")
    task = loop.create_task(main(), context=context)
    assert loop.run_until_complete(task) == ("given", "inside")
    assert context[var] == "inside"
    assert var.get() == "outside"


def test_create_task_has_a_loop_already(loop):
    other = asyncio.SelectorEventLoop()
    coro = five()
    with pytest.raises(TypeError, match="loop"):
        loop.create_task(coro, loop=other)
    coro.close()
    other.close()


@pytest.mark.parametrize("bad", [None, 1, five, print])
def test_create_task_refuses_what_is_no_coroutine(loop, bad):
    with pytest.raises(TypeError, match="a coroutine was expected"):
        loop.create_task(bad)


def test_current_task_and_all_tasks(loop):
    async def main():
        mine = asyncio.current_task()
        other = asyncio.ensure_future(asyncio.sleep(0))
        assert asyncio.all_tasks() == {mine, other}
        await other
        assert asyncio.all_tasks() == {mine}
        return mine

    task = loop.create_task(main())
    assert loop.run_until_complete(task) is task
    assert asyncio.all_tasks(loop) == set()
    assert asyncio.current_task(loop) is None


def test_no_current_task_in_a_callback(loop, turn):
    seen = []
    loop.call_soon(lambda: seen.append(asyncio.current_task()))
    turn()
    assert seen == [None]


def test_task_factory_set_and_get(loop):
    assert loop.get_task_factory() is None

    def factory(loop, coro, **kwargs):
        return asyncio.Task(coro, loop=loop, **kwargs)

    loop.set_task_factory(factory)
    assert loop.get_task_factory() is factory
    loop.set_task_factory(None)
    assert loop.get_task_factory() is None


@pytest.mark.parametrize("bad", [1, "factory", object()])
def test_task_factory_must_be_callable(loop, bad):
    with pytest.raises(TypeError):
        loop.set_task_factory(bad)
    assert loop.get_task_factory() is None


def test_factory_gets_loop_and_coroutine(loop):
    seen = []

    def factory(*args, **kwargs):
        seen.append((args, kwargs))
        return asyncio.Task(args[1], loop=args[0])

    loop.set_task_factory(factory)
    coro = five()
    task = loop.create_task(coro)
    assert seen[0][0] == (loop, coro)
    assert loop.run_until_complete(task) == 5


def test_factory_gets_only_what_the_caller_gave(loop):
    seen = []

    def factory(loop, coro, **kwargs):
        seen.append(sorted(kwargs))
        return asyncio.Task(coro, loop=loop)

    loop.set_task_factory(factory)
    loop.run_until_complete(loop.create_task(five()))
    oracle = asyncio.SelectorEventLoop()
    expected = []
    try:
        oracle.set_task_factory(
            lambda lo, coro, **kw: (
                expected.append(sorted(kw)),
                asyncio.Task(coro, loop=lo),
            )[1]
        )
        oracle.run_until_complete(oracle.create_task(five()))
        context = contextvars.copy_context()
        for call in (
            {"context": context},
            {"name": "x"},
            {"name": "x", "context": context},
        ):
            for each in (loop, oracle):
                each.run_until_complete(each.create_task(five(), **call))
    finally:
        oracle.close()
    assert seen == expected


def test_factory_of_the_old_kind(loop):
    """A factory that takes nothing but loop and coroutine still works."""
    loop.set_task_factory(lambda lo, coro: asyncio.Task(coro, loop=lo))
    assert loop.run_until_complete(five()) == 5
    task = loop.create_task(five())
    assert loop.run_until_complete(task) == 5


def test_factory_is_used_by_run_until_complete_and_gather(loop):
    made = []

    class Mine(asyncio.Task):
        pass

    def factory(loop, coro, **kwargs):
        task = Mine(coro, loop=loop, **kwargs)
        made.append(task)
        return task

    loop.set_task_factory(factory)

    async def main():
        assert isinstance(asyncio.current_task(), Mine)
        return await asyncio.gather(five(), five())

    assert loop.run_until_complete(main()) == [5, 5]
    assert len(made) == 3


def test_factory_that_raises(loop):
    def factory(loop, coro, **kwargs):
        coro.close()
        raise ZeroDivisionError

    loop.set_task_factory(factory)
    with pytest.raises(ZeroDivisionError):
        loop.create_task(five())
    loop.set_task_factory(None)
    assert loop.run_until_complete(five()) == 5


@since_312
async def test_eager_task_factory(loop):
    loop.set_task_factory(asyncio.eager_task_factory)
    seen = []

    async def child():
        seen.append("child")
        return 1

    task = asyncio.create_task(child())
    assert seen == ["child"]
    assert task.done()
    assert task.result() == 1
    assert await task == 1


@since_312
def test_eager_task_that_blocks_goes_on_later(loop):
    async def main():
        loop.set_task_factory(asyncio.eager_task_factory)
        seen = []

        async def child():
            seen.append("at once")
            await asyncio.sleep(0)
            seen.append("later")

        task = asyncio.create_task(child(), name="eager")
        assert seen == ["at once"]
        assert task.get_name() == "eager"
        assert not task.done()
        assert task in asyncio.all_tasks()
        await task
        assert seen == ["at once", "later"]
        assert asyncio.current_task() is parent

    parent = loop.create_task(main())
    loop.run_until_complete(parent)


@since_312
def test_eager_factory_outside_a_running_loop_is_lazy(loop):
    loop.set_task_factory(asyncio.eager_task_factory)
    seen = []

    async def child():
        seen.append(1)

    task = loop.create_task(child())
    assert seen == []
    loop.run_until_complete(task)
    assert seen == [1]


@since_312
def test_create_eager_task_factory_with_own_class(loop):
    class Mine(asyncio.Task):
        pass

    async def main():
        loop.set_task_factory(asyncio.create_eager_task_factory(Mine))
        task = asyncio.create_task(five())
        assert isinstance(task, Mine)
        assert task.done()
        return await task

    assert loop.run_until_complete(main()) == 5


@since_314
async def test_eager_start_by_keyword(loop):
    seen = []

    async def child():
        seen.append(asyncio.current_task().get_name())

    eager = asyncio.create_task(child(), name="now", eager_start=True)
    assert seen == ["now"]
    lazy = asyncio.create_task(child(), name="then", eager_start=False)
    assert seen == ["now"]
    await asyncio.gather(eager, lazy)
    assert seen == ["now", "then"]


@since_314
def test_unknown_keywords_go_to_the_factory(loop):
    seen = []

    def factory(loop, coro, *, priority=None, **kwargs):
        seen.append(priority)
        return asyncio.Task(coro, loop=loop, **kwargs)

    loop.set_task_factory(factory)
    task = loop.create_task(five(), priority=3)
    assert loop.run_until_complete(task) == 5
    assert seen == [3]
    loop.set_task_factory(None)
    coro = five()
    with pytest.raises(TypeError):
        loop.create_task(coro, priority=3)
    coro.close()


def test_exception_of_a_task_nobody_awaited_is_reported(loop, reports):
    async def fail():
        raise ZeroDivisionError

    task = loop.create_task(fail())
    loop.run_until_complete(asyncio.sleep(0.001))
    del task
    gc.collect()
    (context,) = reports
    assert context["message"] == "Task exception was never retrieved"
    assert isinstance(context["exception"], ZeroDivisionError)


def test_destroyed_pending_task_is_reported(loop):
    seen = []
    loop.set_exception_handler(lambda lo, cx: seen.append(cx["message"]))

    async def forever():
        await loop.create_future()

    task = loop.create_task(forever())
    loop.run_until_complete(asyncio.sleep(0))
    del task
    gc.collect()
    assert seen == ["Task was destroyed but it is pending!"]


def test_task_awaiting_itself_and_bad_yields(loop):
    class Bad:
        def __await__(self):
            yield 1

    async def itself():
        await asyncio.current_task()

    async def main():
        with pytest.raises(RuntimeError, match="bad yield"):
            await asyncio.ensure_future(bad())
        with pytest.raises(RuntimeError, match="cannot await on itself"):
            await asyncio.ensure_future(itself())

    async def bad():
        await Bad()

    loop.run_until_complete(main())


def test_tasks_are_freed(loop):
    async def main():
        task = asyncio.ensure_future(asyncio.sleep(0))
        await task
        return weakref.ref(task)

    alive = loop.run_until_complete(main())
    gc.collect()
    assert alive() is None


def test_a_python_task_class(loop):
    """asyncio's Python tasks schedule bound methods, not C wrappers."""
    from asyncio import tasks

    task = tasks._PyTask(five(), loop=loop)
    assert loop.run_until_complete(task) == 5


def test_a_python_future(loop):
    from asyncio import futures

    future = futures._PyFuture(loop=loop)
    loop.call_soon(future.set_result, 3)

    async def main():
        return await future

    assert loop.run_until_complete(main()) == 3


async def test_task_steps_in_the_order_they_were_woken(loop):
    seen = []
    future = loop.create_future()

    async def child(number):
        await future
        seen.append(number)

    tasks = [asyncio.ensure_future(child(n)) for n in range(50)]
    await asyncio.sleep(0)
    future.set_result(None)
    loop.call_soon(seen.append, "after")
    await asyncio.gather(*tasks)
    assert seen == [*range(50), "after"]
