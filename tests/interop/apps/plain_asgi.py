"""The least ASGI application: some words for every request.

/endless sends for as long as it may, /sent says how much that was so far;
/collect runs the garbage collector first.
"""

import gc

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
CHUNK = bytes(64 * 1024)

sent = 0


async def endless(send):
    global sent
    await send({"type": "http.response.start", "status": 200, "headers": []})
    part = {"type": "http.response.body", "body": CHUNK, "more_body": True}
    while True:
        await send(part)
        sent += len(CHUNK)


async def app(scope, receive, send):
    if scope["path"] == "/endless":
        await endless(send)
    elif scope["path"] == "/sent":
        text = b"%d" % sent
        length = (b"content-length", b"%d" % len(text))
        await send({**START, "headers": [length]})
        await send({**END, "body": text})
    else:
        if scope["path"] == "/collect":
            gc.collect()
        await send(START)
        await send(END)
