"""A process without stdin does not abort."""

import asyncio
import importlib
import os
import sys

os.close(0)


async def main():
    await asyncio.sleep(0)


importlib.import_module(sys.argv[1]).run(main())
print("right")
