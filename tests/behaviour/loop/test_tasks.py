"""create_task: factories by version, names, eager starts, running tasks."""

import asyncio
import contextvars
import sys

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


def test_factory_gets_only_the_arguments_of_the_caller(loop):
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
def test_eager_factory_outside_a_running_loop_is_lazy(loop):
    loop.set_task_factory(asyncio.eager_task_factory)
    seen = []

    async def child():
        seen.append(1)

    task = loop.create_task(child())
    assert seen == []
    loop.run_until_complete(task)
    assert seen == [1]


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


@pytest.mark.parametrize("inner", [False, True])
async def test_a_future_of_another_class_gets_the_handle_of_a_wake_up(
    loop, inner
):
    """Also if it passes CPython's own future within it."""

    class Other:
        """What a task may await: it has a future's protocol."""

        _asyncio_future_blocking = False

        def get_loop(self):
            return loop

        def add_done_callback(self, callback, *, context=None):
            self.call = callback, context

        def finish(self):
            callback, context = self.call
            argument = done if inner else self
            self.handles = [
                loop.call_soon(callback, argument, context=context)
                for _ in range(2)
            ]
            self.handles[0].cancel()

        def result(self):
            return 5

        def __await__(self):
            self._asyncio_future_blocking = True
            yield self
            return self.result()

    done = loop.create_future()
    done.set_result(5)
    other = Other()
    loop.call_soon(other.finish)
    assert await other == 5
    assert all(isinstance(one, asyncio.Handle) for one in other.handles)
