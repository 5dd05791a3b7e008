"""uvicorn with httptools, answering every request with a few words.

    python benchmarks/servers/uvicorn_plain.py --loop NAME

It is uvicorn's own Server on a loop of the wanted kind, as `uvicorn --loop`
makes one; without access log, as under load.  It binds its own socket:
asyncio sets TCP_NODELAY only then.
"""

from __future__ import annotations

from typing import Any

import serving
import uvicorn

BODY = b"Hello, world!"
START = {
    "type": "http.response.start",
    "status": 200,
    "headers": [
        (b"content-type", b"text/plain"),
        (b"content-length", str(len(BODY)).encode()),
    ],
}
END = {"type": "http.response.body", "body": BODY}


async def app(scope: dict, receive: Any, send: Any) -> None:
    """Answer; the whole of an ASGI application."""
    await send(START)
    await send(END)


class Server(uvicorn.Server):
    """Announces its port once it listens."""

    async def startup(self, sockets: Any = None) -> None:
        await super().startup(sockets)
        if self.started:
            serving.announce(serving.port_of(self.servers[0]))


if __name__ == "__main__":
    args = serving.parser(__doc__).parse_args()
    config = uvicorn.Config(
        app,
        host="127.0.0.1",
        port=0,
        http="httptools",
        timeout_keep_alive=600,  # it may be stopped meanwhile
        ws="none",
        lifespan="off",
        log_level="warning",
        access_log=False,
    )
    serving.serve(args, Server(config).serve)
