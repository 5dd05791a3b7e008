"""The file object of a pipe is closed once."""

import asyncio
import importlib
import io
import os
import sys

opened = []


class File(io.FileIO):
    def close(self):
        if not self.closed:
            opened.extend(os.pipe())
        super().close()


async def main():
    loop = asyncio.get_running_loop()
    reading, writing = os.pipe()
    transport, _ = await loop.connect_read_pipe(
        asyncio.Protocol, File(reading)
    )
    transport.close()
    while not opened:
        await asyncio.sleep(0.01)
    os.write(opened[1], b"in another pipe")
    assert os.read(opened[0], 100) == b"in another pipe"
    for fd in (writing, *opened):
        os.close(fd)
    print("right")


importlib.import_module(sys.argv[1]).run(main())
