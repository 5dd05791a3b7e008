"""Closing a server ends serve_forever()."""

import asyncio
import importlib
import sys


async def main():
    server = await asyncio.start_server(print, "127.0.0.1", 0)
    forever = asyncio.create_task(server.serve_forever())
    await asyncio.sleep(0.01)
    server.close()
    done, _ = await asyncio.wait([forever], timeout=10)
    assert done and forever.cancelled()
    print("right")


importlib.import_module(sys.argv[1]).run(main())
