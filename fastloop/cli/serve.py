"""The process that serves a web application while it is measured.

    KIND SERVER PORT REPORT CPU APP

SERVER is a server's name, or "" for the first that is installed.  CPU is the
processor to stay on, or "".  SIGUSR2 starts and stops the sampler, see
`sample`.  It does not see granian's processes.
"""

from __future__ import annotations

import asyncio
import os
import signal
import sys
from collections.abc import Callable
from importlib import import_module
from importlib.util import find_spec
from typing import Any

from .adopt import Counted, adopt
from .worker import report_at_exit

__all__ = ["main"]

#: The address that is listened on.
HOST = "127.0.0.1"


def main() -> None:
    """Serve until SIGTERM; see the module."""
    kind, server, port, report, cpu, app = sys.argv[1:]
    if cpu:
        os.sched_setaffinity(0, {int(cpu)})
    loops = Counted(kind)
    adopt(kind, loops)
    from .sample import Sampler

    sampler = Sampler()
    report_at_exit(report, loops, sampler)
    signal.signal(signal.SIGUSR2, sampler.toggle)
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
    sys.path.insert(0, os.getcwd())
    sys.argv[1:] = []
    target = _load(app)
    name = server or _server_for(target)
    if find_spec(name) is None:
        sys.exit(f"{name} is not installed: pip install {name}")
    if _is_aiohttp(target) != (name == "aiohttp"):
        which = "no" if name == "aiohttp" else "an"
        sys.exit(f"{app} is {which} aiohttp.web.Application")
    if name == "granian":
        loops.made += 1  # its processes make their loops, which nobody counts
        _granian(int(port), app)
    else:
        _SERVERS[name](target, int(port))


def _load(app: str) -> Any:
    module, _, names = app.partition(":")
    found: Any = import_module(module)
    for name in names.split("."):
        if not hasattr(found, name):
            sys.exit(f"{module} has no {names}")
        found = getattr(found, name)
    return found


def _server_for(app: Any) -> str:
    if _is_aiohttp(app):
        return "aiohttp"
    for name in ("uvicorn", "hypercorn", "granian"):
        if find_spec(name) is not None:
            return name
    sys.exit("no server is installed: pip install uvicorn")


def _is_aiohttp(app: Any) -> bool:
    web = sys.modules.get("aiohttp.web")
    return web is not None and isinstance(app, web.Application)


def _uvicorn(app: Any, port: int) -> None:
    import uvicorn

    config = uvicorn.Config(
        app, host=HOST, port=port, log_level="error", access_log=False
    )
    asyncio.run(uvicorn.Server(config).serve())


def _hypercorn(app: Any, port: int) -> None:
    from hypercorn.asyncio import serve
    from hypercorn.config import Config

    config = Config()
    config.bind = [f"{HOST}:{port}"]
    config.loglevel = "ERROR"
    asyncio.run(serve(app, config))


def _granian(port: int, name: str) -> None:
    from granian import Granian  # its processes do as their parent
    from granian.log import LOGGING_CONFIG

    # To stderr, where bench looks for the reason of a failure.
    usual: Any = LOGGING_CONFIG["handlers"]
    handlers = {
        key: {**handler, "stream": "ext://sys.stderr"}
        for key, handler in usual.items()
    }
    server: Any = Granian
    server(
        name,
        address=HOST,
        port=port,
        interface="asgi",
        loop="asyncio",
        log_level="error",
        log_dictconfig={"handlers": handlers},
    ).serve()


def _aiohttp(app: Any, port: int) -> None:
    from aiohttp import web

    web.run_app(app, host=HOST, port=port, access_log=None, print=None)


_SERVERS: dict[str, Callable[[Any, int], None]] = {
    "uvicorn": _uvicorn,
    "hypercorn": _hypercorn,
    "aiohttp": _aiohttp,
}
