"""A small program for a freshly installed wheel: all of it works, or it dies.

    python smoke.py [LIBUV_VERSION]

Timers, threads, a TCP server and client, a subprocess; and that libuv came
from the wheel, where its version is given.
"""

import asyncio
import sys

import fastloop


async def echo(
    reader: asyncio.StreamReader, writer: asyncio.StreamWriter
) -> None:
    while data := await reader.read(1 << 16):
        writer.write(data)
    writer.close()
    await writer.wait_closed()


async def main() -> None:
    loop = asyncio.get_running_loop()
    assert isinstance(loop, fastloop.Loop), loop
    server = await asyncio.start_server(echo, "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    data = bytes(range(256)) * 4096
    writer.write(data)
    assert await asyncio.wait_for(reader.readexactly(len(data)), 10) == data
    writer.close()
    await writer.wait_closed()
    server.close()
    await server.wait_closed()
    await asyncio.sleep(0.01)
    assert await asyncio.to_thread(sum, range(100)) == 4950
    child = await asyncio.create_subprocess_exec(
        sys.executable, "-c", "print(42)", stdout=asyncio.subprocess.PIPE
    )
    out, _ = await child.communicate()
    assert out == b"42\n", out


if __name__ == "__main__":
    fastloop.run(main())
    found = fastloop.libuv_version()
    assert sys.argv[1:] in ([], [found]), f"libuv is {found}"
    print(f"fastloop {fastloop.__version__} with libuv {found}: works")
