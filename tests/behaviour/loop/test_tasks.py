"""create_task, and factories by version."""

import asyncio
import contextlib
import contextvars
import sys

import pytest

since_314 = pytest.mark.skipif(
    sys.version_info < (3, 14), reason="create_task passes on new in 3.14"
)


async def five():
    return 5


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


def test_factory_gets_only_the_arguments_of_the_caller(loop):
    """As from asyncio's loop of this version."""
    oracle = asyncio.SelectorEventLoop()
    context = contextvars.copy_context()
    seen = {loop: [], oracle: []}

    def factory(lo, coro, **kwargs):
        seen[lo].append(sorted(kwargs))
        return asyncio.Task(coro, loop=lo)

    with contextlib.closing(oracle):
        for each in (loop, oracle):
            each.set_task_factory(factory)
            for call in (
                {},
                {"context": context},
                {"name": "x"},
                {"name": "x", "context": context},
            ):
                each.run_until_complete(each.create_task(five(), **call))
    assert seen[loop] == seen[oracle]


def test_factory_of_the_old_kind(loop):
    """A factory that takes nothing but loop and coroutine still works."""
    loop.set_task_factory(lambda lo, coro: asyncio.Task(coro, loop=lo))
    assert loop.run_until_complete(five()) == 5
    task = loop.create_task(five())
    assert loop.run_until_complete(task) == 5


def test_factory_that_raises(loop):
    def factory(loop, coro, **kwargs):
        coro.close()
        raise ZeroDivisionError

    loop.set_task_factory(factory)
    with pytest.raises(ZeroDivisionError):
        loop.create_task(five())
    loop.set_task_factory(None)
    assert loop.run_until_complete(five()) == 5


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
