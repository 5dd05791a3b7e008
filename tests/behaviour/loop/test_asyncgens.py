"""Async generators: hooks, shutdown, and unfinished generators."""

import asyncio
import gc
import sys

import pytest


async def counting(ended, limit=5):
    try:
        for number in range(limit):
            await asyncio.sleep(0)
            yield number
    finally:
        await asyncio.sleep(0)
        ended.append("ended")


async def test_dropped_generator_is_closed_by_the_loop():
    ended = []
    async for _number in counting(ended):
        break
    gc.collect()
    for _ in range(5):
        await asyncio.sleep(0)
    assert ended == ["ended"]


def test_shutdown_closes_generators_that_are_left(loop):
    ended = []
    kept = []

    async def main():
        generator = counting(ended)
        kept.append(generator)
        assert await anext(generator) == 0

    loop.run_until_complete(main())
    assert ended == []
    loop.run_until_complete(loop.shutdown_asyncgens())
    assert ended == ["ended"]
    with pytest.raises(StopAsyncIteration):
        loop.run_until_complete(anext_of(kept[0]))


async def anext_of(generator):
    return await anext(generator)


def test_generator_begun_after_shutdown_warns(loop):
    kept = []

    async def main():
        generator = counting([])
        kept.append(generator)
        with pytest.warns(
            ResourceWarning, match="was scheduled after loop.shutdown_asyn"
        ):
            await anext(generator)
        await generator.aclose()

    loop.run_until_complete(loop.shutdown_asyncgens())
    loop.run_until_complete(main())


def test_exception_in_shutdown_is_reported(loop, reports):
    async def bad():
        try:
            yield 1
        finally:
            raise ZeroDivisionError

    kept = []

    async def main():
        generator = bad()
        kept.append(generator)
        await anext(generator)

    loop.run_until_complete(main())
    loop.run_until_complete(loop.shutdown_asyncgens())
    (context,) = reports
    assert context["message"].startswith(
        "an error occurred during closing of asynchronous generator"
    )
    assert isinstance(context["exception"], ZeroDivisionError)
    assert context["asyncgen"] is kept[0]


def test_hooks_of_an_outer_loop_are_restored(loop, iterate):
    def firstiter(generator):
        pass

    def finalizer(generator):
        pass

    old = sys.get_asyncgen_hooks()
    sys.set_asyncgen_hooks(firstiter=firstiter, finalizer=finalizer)
    try:
        iterate()
        assert sys.get_asyncgen_hooks() == (firstiter, finalizer)
    finally:
        sys.set_asyncgen_hooks(*old)


def test_hooks_are_restored_after_an_exit_exception(loop):
    old = sys.get_asyncgen_hooks()

    def leave():
        raise SystemExit

    loop.call_soon(leave)
    with pytest.raises(SystemExit):
        loop.run_forever()
    assert sys.get_asyncgen_hooks() == old


def test_runner_shuts_generators_down(loop_factory):
    ended = []
    kept = []

    async def main():
        generator = counting(ended)
        kept.append(generator)
        await anext(generator)

    with asyncio.Runner(loop_factory=loop_factory) as runner:
        runner.run(main())
    assert ended == ["ended"]


async def test_generator_closed_from_another_thread(loop, in_thread):
    ended = []
    generator = counting(ended)
    await anext(generator)
    holder = [generator]
    del generator
    thread = in_thread(holder.clear)
    while thread.is_alive() or not ended:
        await asyncio.sleep(0)
    assert ended == ["ended"]
