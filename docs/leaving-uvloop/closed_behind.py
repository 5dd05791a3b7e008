"""A closed fd does not end the process."""

import asyncio
import importlib
import socket
import sys


async def main():
    loop = asyncio.get_running_loop()
    one, other = socket.socketpair()
    loop.add_reader(one.fileno(), print)
    one.close()
    await asyncio.sleep(0.1)
    other.close()
    print("right")


importlib.import_module(sys.argv[1]).run(main())
