"""An ASGI application that shows its loops' metrics to Prometheus."""

import asyncio
import os

from prometheus_client import CollectorRegistry, make_asgi_app, multiprocess

from fastloop.contrib import prometheus

registry = CollectorRegistry()
multiprocess.MultiProcessCollector(registry)
metrics = make_asgi_app(registry)


async def app(scope, receive, send):
    """Answer /metrics, and anything else with this worker's number."""
    if scope["type"] == "lifespan":
        await receive()
        prometheus.register(interval_s=0.1)
        print("lifespan begins", flush=True)
        await send({"type": "lifespan.startup.complete"})
        await receive()
        await send({"type": "lifespan.shutdown.complete"})
    elif scope["path"].startswith("/metrics"):
        await metrics(scope, receive, send)
    else:
        await asyncio.to_thread(int)
        body = str(os.getpid()).encode()
        await send({"type": "http.response.start", "status": 200})
        await send({"type": "http.response.body", "body": body})
