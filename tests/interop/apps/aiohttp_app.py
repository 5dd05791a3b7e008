"""aiohttp's `run_app` on the loop that the environment's LOOP names."""

import asyncio
import os
import socket

from aiohttp import web


async def root(request: web.Request) -> web.Response:
    cls = type(asyncio.get_running_loop())
    return web.Response(text=cls.__module__.partition(".")[0])


def main() -> None:
    loop = None
    if os.environ["LOOP"] == "fastloop":
        import fastloop

        loop = fastloop.new_event_loop()
    app = web.Application()
    app.add_routes([web.get("/", root)])
    sock = socket.create_server(("127.0.0.1", 0))
    port = sock.getsockname()[1]

    def say(text: str) -> None:
        print(text.replace(":0)", f":{port})"), flush=True)

    web.run_app(app, sock=sock, loop=loop, print=say)


if __name__ == "__main__":
    main()
