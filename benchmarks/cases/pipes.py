"""Pipes and processes."""

from __future__ import annotations

import asyncio
import os

from harness.case import Figure, Run, loop_case, task_case

ORDER = 106
SIZE = 1024
PIPED = 2_000


@loop_case(
    "pipe",
    "pipe read, 1 KiB",
    unit="us",
    group="sockets",
    cpu=[("process", "self")],
)
def pipe_read(loop: asyncio.AbstractEventLoop, run: Run) -> Figure:
    read, write = os.pipe()
    message = bytes(SIZE)

    class Reader(asyncio.Protocol):
        left = 0
        received = 0

        def data_received(self, data: bytes) -> None:
            self.received += len(data)
            if self.received == SIZE:
                self.received = 0
                self.left -= 1
                if self.left:
                    os.write(write, message)
                else:
                    loop.stop()

    with open(read, "rb", 0) as file:
        transport, reader = loop.run_until_complete(
            loop.connect_read_pipe(Reader, file)
        )

        def messages() -> None:
            reader.left = PIPED
            os.write(write, message)
            loop.run_forever()

        found = run.sample(messages, PIPED, unit=1_000)
        transport.close()
        loop.run_until_complete(asyncio.sleep(0))
    os.close(write)
    return found


@task_case("spawn", "spawn /bin/true and wait", 1, unit="us", group="sockets")
async def spawn() -> None:
    process = await asyncio.create_subprocess_exec("/bin/true")
    await process.wait()


CASES = (pipe_read, spawn)
