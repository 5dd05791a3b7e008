"""A server that ends gracefully: on a signal it takes no new connection, lets
the requests in hand finish, ends its background work, and says all it did.
"""

import asyncio
import os
import signal


async def background(stopped: asyncio.Event) -> None:
    try:
        while not stopped.is_set():
            await asyncio.sleep(0.001)
    finally:
        print("background ended", flush=True)


async def main() -> None:
    stopping = asyncio.Event()
    loop = asyncio.get_running_loop()
    for signum in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(signum, stopping.set)
    requests = set()

    async def handle(reader, writer):
        requests.add(asyncio.current_task())
        async with asyncio.timeout(20):
            line = await reader.readline()
            print("request in hand", flush=True)
            await stopping.wait()
            await asyncio.to_thread(os.getpid)
            writer.write(line.upper())
            writer.close()
            await writer.wait_closed()

    server = await asyncio.start_server(handle, "127.0.0.1", 0)
    worker = asyncio.create_task(background(stopping))
    port = server.sockets[0].getsockname()[1]
    print(f"serving on {port} by {type(loop).__module__}", flush=True)
    await stopping.wait()
    server.close()
    await asyncio.gather(*requests)
    await server.wait_closed()
    await worker
    print("ended", flush=True)


if __name__ == "__main__":
    if os.environ["LOOP"] == "fastloop":
        import fastloop

        fastloop.run(main())
    else:
        asyncio.run(main())
