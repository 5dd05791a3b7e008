"""An ASGI application whose requests a test holds open.

A POST is answered at once by a first line with the process and the loop, and
by a second when its body has come; a GET by the first line alone.
"""

import asyncio
import os


async def lifespan(receive, send):
    await receive()
    print("lifespan begins", flush=True)
    await send({"type": "lifespan.startup.complete"})
    await receive()
    print("lifespan ends", flush=True)
    await send({"type": "lifespan.shutdown.complete"})


async def app(scope, receive, send):
    if scope["type"] == "lifespan":
        await lifespan(receive, send)
        return
    loop = type(asyncio.get_running_loop()).__module__.partition(".")[0]
    line = f"{os.getpid()} {loop}\n".encode()
    await send({"type": "http.response.start", "status": 200, "headers": []})
    await send({"type": "http.response.body", "body": line, "more_body": True})
    body = b""
    more = scope["method"] == "POST"
    while more:
        message = await receive()
        body += message.get("body", b"")
        more = message.get("more_body", False)
    await send({"type": "http.response.body", "body": body})
