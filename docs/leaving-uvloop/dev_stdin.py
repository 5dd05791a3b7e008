"""A subprocess can open /dev/stdin."""

import asyncio
import importlib
import sys
from asyncio.subprocess import PIPE


async def main():
    process = await asyncio.create_subprocess_exec(
        "cat", "/dev/stdin", stdin=PIPE, stdout=PIPE
    )
    out, _ = await process.communicate(b"hello")
    assert out == b"hello"
    print("right")


importlib.import_module(sys.argv[1]).run(main())
