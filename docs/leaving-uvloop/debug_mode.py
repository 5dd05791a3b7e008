"""Debug mode does not crash, and an asynchronous generator is cleaned up."""

import asyncio
import importlib
import sys

cleaned = asyncio.Event()


async def rows():
    try:
        yield 1
        yield 2
    finally:
        cleaned.set()


async def first():
    generator = rows()
    return await anext(generator)


async def main():
    await asyncio.create_task(first())
    await asyncio.wait_for(cleaned.wait(), 10)
    print("right")


importlib.import_module(sys.argv[1]).run(main(), debug=True)
