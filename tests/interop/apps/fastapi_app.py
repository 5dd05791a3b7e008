"""A FastAPI application that uses what servers must carry: lifespan,
streaming, background task, a worker thread.
"""

import asyncio
import contextlib
import os

from fastapi import BackgroundTasks, FastAPI, Request
from fastapi.responses import PlainTextResponse, StreamingResponse


@contextlib.asynccontextmanager
async def lifespan(app: FastAPI):
    app.state.done = asyncio.Queue()
    ticker = asyncio.create_task(asyncio.sleep(3600))
    print("lifespan begins", flush=True)
    yield {"ticker": ticker}
    ticker.cancel()
    with contextlib.suppress(asyncio.CancelledError):
        await ticker
    print("lifespan ends", flush=True)


app = FastAPI(lifespan=lifespan)


def where() -> dict:
    cls = type(asyncio.get_running_loop())
    return {"loop": cls.__module__.partition(".")[0], "pid": os.getpid()}


@app.get("/")
async def root(request: Request) -> dict:
    return {**where(), "lifespan": not request.state.ticker.done()}


@app.get("/plain", response_class=PlainTextResponse)
async def plain() -> str:
    return "Hello, world!"


@app.get("/thread")
def thread(n: int) -> dict:
    return {"sum": sum(range(n))}


@app.get("/stream")
async def stream(n: int) -> StreamingResponse:
    async def lines():
        for i in range(n):
            yield f"line {i}\n"
            await asyncio.sleep(0)

    return StreamingResponse(lines(), media_type="text/plain")


@app.post("/task")
async def task(word: str, background: BackgroundTasks) -> dict:
    background.add_task(app.state.done.put, word)
    return {"accepted": word}


@app.get("/done")
async def done() -> str:
    return await app.state.done.get()
