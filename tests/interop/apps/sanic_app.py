"""A Sanic application; its loop is chosen by the environment's LOOP.

`fastloop.install()` stands at the top of the module: Sanic imports it in each
worker process before that makes its loop.
"""

import asyncio
import os
import sys
import warnings

from sanic import Request, Sanic, json, text

if os.environ["LOOP"] == "fastloop":
    import fastloop

    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        fastloop.install()

app = Sanic("interop")
app.config.USE_UVLOOP = False
app.config.GRACEFUL_SHUTDOWN_TIMEOUT = 3


@app.before_server_start
async def begin(app: Sanic) -> None:
    app.ctx.done = asyncio.Queue()
    print("worker begins", flush=True)


@app.after_server_start
async def ready(app: Sanic) -> None:
    print("worker serves", flush=True)


@app.after_server_stop
async def end(app: Sanic) -> None:
    print("worker ends", flush=True)


@app.get("/")
async def root(request: Request):
    cls = type(asyncio.get_running_loop())
    return json({"loop": cls.__module__.partition(".")[0], "pid": os.getpid()})


@app.post("/echo", stream=True)
async def echo(request: Request) -> None:
    response = await request.respond(content_type="application/octet-stream")
    chunks = [chunk async for chunk in request.stream]
    for chunk in chunks:
        await response.send(chunk)
    await response.eof()


@app.post("/task")
async def task(request: Request):
    async def later(app: Sanic) -> None:
        await asyncio.sleep(0)
        await app.ctx.done.put(request.args.get("word"))

    request.app.add_task(later)
    return text("accepted")


@app.post("/scale")
async def scale(request: Request):
    request.app.m.scale(int(request.args.get("n")))
    return text("asked")


@app.get("/done")
async def done(request: Request):
    return text(await request.app.ctx.done.get())


if __name__ == "__main__":
    port, workers = int(sys.argv[1]), int(sys.argv[2])
    app.run(
        host="127.0.0.1",
        port=port,
        workers=workers or 1,
        single_process=workers == 0,
        motd=False,
        access_log=False,
    )
