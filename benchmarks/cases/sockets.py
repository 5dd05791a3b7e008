"""Other ways to an answer: sock_*, a connection for each, UDP, Unix, pipes,
processes."""

from __future__ import annotations

import asyncio
import os
from typing import Any

from harness.case import (
    Case,
    Figure,
    LoopFactory,
    Run,
    figure,
    loop_case,
    simple_case,
)
from harness.served import Load, load_key, served_case, size_name

ORDER = 106
KIB = 1024


def sock_load(connections: int, size: int) -> Load:
    return Load(
        f"sock_{load_key(connections, size)}",
        f"sock_recv + sock_sendall, {connections} of {size_name(size)}",
        {"connections": connections, "size": size},
    )


def pipe_read(name: str, size: int, piped: int) -> Case:
    """Return the case of messages through a pipe, their writes included."""

    @loop_case(
        name, f"pipe read, {size_name(size)}", unit="us", group="sockets"
    )
    def case(loop: asyncio.AbstractEventLoop, run: Run) -> Figure:
        read, write = os.pipe()
        message = bytes(size)

        class Reader(asyncio.Protocol):
            left = 0
            received = 0

            def data_received(self, data: bytes) -> None:
                self.received += len(data)
                if self.received == size:
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
                reader.left = piped
                os.write(write, message)
                loop.run_forever()

            found = run.sample(messages, piped, unit=1_000)
            transport.close()
            loop.run_until_complete(asyncio.sleep(0))
        os.close(write)
        return found

    return case


@simple_case("spawn", "spawn /bin/true and wait", unit="us", group="sockets")
def spawn(new_loop: LoopFactory, run: Run) -> Figure:
    """Time a program that does nothing, from its start to its end."""

    async def once() -> None:
        process = await asyncio.create_subprocess_exec("/bin/true")
        await process.wait()

    async def main() -> Figure:
        samples = []
        await once()
        clock = run.clock
        for _ in run.repeat(5):
            start = clock()
            await once()
            samples.append((clock() - start) / 1e3)
        return figure(samples)

    with asyncio.Runner(loop_factory=new_loop) as runner:
        return runner.run(main())


def socket_case(load: Load, script: str, *options: str, **rest: Any) -> Case:
    return served_case(load.key, "sockets", script, options, [load], **rest)


CASES = (
    served_case(
        "sock",
        "sockets",
        "sock_echo.py",
        [],
        [
            sock_load(64, 64),
            sock_load(64, KIB),
            sock_load(64, 16 * KIB),
            sock_load(8, 100 * KIB),
        ],
    ),
    socket_case(
        Load(
            "connect",
            "connect, one echo of 64 B, close",
            {"connections": 32, "size": 64, "fresh": 1},
        ),
        "echo.py",
        "--mode=protocol",
    ),
    socket_case(
        Load("udp", "UDP echo, 512 B", {"size": 512, "udp": 1}),
        "udp_echo.py",
    ),
    socket_case(
        Load("unix", "Unix echo, Protocol, 64 of 1 KiB", {"size": KIB}),
        "echo.py",
        "--mode=protocol",
        unix=True,
    ),
    pipe_read("pipe", KIB, 2_000),
    pipe_read("pipe_64k", 64 * KIB, 500),
    spawn,
)
