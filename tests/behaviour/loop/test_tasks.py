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


def test_create_task_has_a_loop_already(loop):
    other = asyncio.SelectorEventLoop()
    coro = five()
    with pytest.raises(TypeError, match="loop"):
        loop.create_task(coro, loop=other)
    coro.close()
    other.close()


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
