"""uvicorn with httptools, answering every request with a few words.

    python benchmarks/servers/uvicorn_plain.py --loop NAME

It is uvicorn's own Server on a loop of the wanted kind, as `uvicorn --loop`
makes one; without access log, as under load.  It binds its own socket:
asyncio sets TCP_NODELAY only then.  With --port or --unix it listens there,
behind a proxy.
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
    """Announces its port once it listens, or 0 on a Unix socket."""

    async def startup(self, sockets: Any = None) -> None:
        await super().startup(sockets)
        if self.started:
            address = self.servers[0].sockets[0].getsockname()
            serving.announce(0 if self.config.uds else address[1])


if __name__ == "__main__":
    parser = serving.parser(__doc__)
    parser.add_argument("--port", type=int, default=0)
    parser.add_argument("--unix", metavar="PATH")
    args = parser.parse_args()
    config = uvicorn.Config(
        app,
        host="127.0.0.1",
        port=args.port,
        uds=args.unix,
        http="httptools",
        timeout_keep_alive=600,  # it may be stopped meanwhile
        ws="none",
        lifespan="off",
        log_level="warning",
        access_log=False,
    )
    serving.serve(args, Server(config).serve)
