"""Async generators: hooks, shutdown, and unfinished generators."""

import asyncio
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
