"""Applications of web.py that send streams of tokens: README.md has them.

The engine begins when all --streams are there, and leaves out a step that is
overdue by the next.  An event ends with the time when its token was due.
"""

from __future__ import annotations

import asyncio
import threading
import time
from argparse import Namespace
from collections.abc import AsyncIterator, Callable
from contextlib import suppress
from typing import Any

STEP_NS = 20_000_000
EVENT = (
    'data: {"id":"cmpl-4f2a9c","object":"chat.completion.chunk",'
    '"created":1764400000,"model":"m","choices":[{"index":0,"delta":'
    '{"content":" token"},"finish_reason":null}],"due":"@%d"}\n\n'
)
START = {
    "type": "http.response.start",
    "status": 200,
    "headers": [(b"content-type", b"text/event-stream; charset=utf-8")],
}


Queue = asyncio.Queue[int | None]


def put(queues: list[Queue], due_ns: int) -> None:
    for queue in queues:
        queue.put_nowait(due_ns)


class Engine:
    """Makes tokens, once there are so many streams."""

    def __init__(self, is_each: bool, streams: int) -> None:
        self.is_each = is_each
        self.missing = streams
        self.queues: set[Queue] = set()

    async def events(self, queue: Queue) -> AsyncIterator[str]:
        """Yield what the engine makes, until None is in the queue."""
        self.queues.add(queue)
        self.missing -= 1
        if self.missing == 0:
            own = (asyncio.get_running_loop().call_soon_threadsafe,)
            threading.Thread(target=self.run, args=own, daemon=True).start()
        try:
            while (due_ns := await queue.get()) is not None:
                yield EVENT % due_ns
        finally:
            self.queues.discard(queue)

    def run(self, call: Callable[..., Any]) -> None:
        due_ns = time.monotonic_ns()
        with suppress(RuntimeError):  # the loop is closed
            while True:
                due_ns += STEP_NS
                late_ns = time.monotonic_ns() - due_ns
                due_ns += max(0, late_ns // STEP_NS) * STEP_NS
                time.sleep(max(0, -late_ns) / 1e9)
                queues = list(self.queues)
                if not self.is_each:
                    call(put, queues, due_ns)
                    continue
                for queue in queues:
                    call(queue.put_nowait, due_ns)


def with_fastapi(engine: Engine) -> Any:
    import fastapi
    from fastapi.responses import StreamingResponse

    app = fastapi.FastAPI()

    @app.get("/stream")
    async def stream() -> StreamingResponse:
        events = engine.events(asyncio.Queue())
        return StreamingResponse(events, media_type="text/event-stream")

    @app.get("/")
    async def health() -> dict[str, str]:
        return {"status": "ok"}

    return app


def with_asgi(engine: Engine) -> Any:
    """Return the same, but with streams of plain ASGI."""
    others = with_fastapi(engine)

    async def app(scope: dict, receive: Any, send: Any) -> None:
        if scope["path"] != "/stream":
            await others(scope, receive, send)
            return
        await receive()  # the request
        queue: Queue = asyncio.Queue()
        gone = asyncio.create_task(receive())
        gone.add_done_callback(lambda _: queue.put_nowait(None))
        await send(START)
        body = {"type": "http.response.body", "more_body": True}
        async for event in engine.events(queue):
            await send({**body, "body": event.encode()})

    return app


def tokens(args: Namespace) -> Any:
    engine = Engine(args.app == "tokens_each", args.streams)
    make = with_asgi if args.app == "tokens_asgi" else with_fastapi
    return make(engine)


APPS = dict.fromkeys(("tokens_each", "tokens_step", "tokens_asgi"), tokens)
