"""An aiohttp server that answers every request with a few words.

python benchmarks/servers/aiohttp_plain.py --loop NAME
"""

from __future__ import annotations

import asyncio

import serving
from aiohttp import web


async def hello(request: web.Request) -> web.Response:
    return web.Response(text="Hello, world!")


async def forever() -> None:
    app = web.Application()
    app.router.add_get("/", hello)
    runner = web.AppRunner(app, access_log=None)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    serving.announce(runner.addresses[0][1])
    await asyncio.get_running_loop().create_future()


if __name__ == "__main__":
    serving.serve(serving.parser(__doc__).parse_args(), forever)
