"""The process that serves a web application while it is measured.

    KIND SERVER PORT REPORT CPU APP

SERVER is a server's name, or "" for the first that is installed.  CPU is the
processor to stay on, or "".  SIGUSR2 starts and stops the sampler, see
`sample`.  It does not see granian's processes.  REPORT.server gets JSON: what
serves, with versions.
"""

from __future__ import annotations

import asyncio
import json
import os
import signal
import sys
from collections.abc import Callable
from importlib import import_module
from importlib.metadata import PackageNotFoundError, version
from importlib.util import find_spec
from typing import Any

from .client import HOST
from .default_loop import Counted, set_default_loop
from .worker import MADE, SERVES, report_at_exit

__all__ = ["SERVERS", "main"]

#: Packages that make applications, which may be wrapped in others.
_FRAMEWORKS = {
    *("aiohttp", "blacksheep", "django", "falcon", "fastapi", "litestar"),
    *("muffin", "quart", "sanic", "starlette"),
}


def main() -> None:
    """Serve until SIGTERM; see the module."""
    kind, server, port, report, cpu, app = sys.argv[1:]
    if cpu:
        os.sched_setaffinity(0, {int(cpu)})
    set_default_loop(kind, Counted(kind, f"{report}{MADE}"))
    from .sample import Sampler

    sampler = Sampler()
    report_at_exit(report, sampler)
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
    with open(f"{report}{SERVES}", "w") as file:
        json.dump(_facts(name, target), file)
    if name == "granian":
        _granian(int(port), app)
    else:
        _CALLS[name](target, int(port))


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
    for name in SERVERS:
        if name != "aiohttp" and find_spec(name) is not None:
            return name
    sys.exit("no server is installed: pip install uvicorn")


def _facts(server: str, app: Any) -> dict[str, str]:
    """Return what serves the application, with versions."""
    classes = {kind.__module__.partition(".")[0] for kind in type(app).__mro__}
    found = classes | (_FRAMEWORKS & sys.modules.keys())
    frameworks = filter(None, map(_version, sorted(found)))
    return {
        "server": _version(server),
        "http parser": SERVERS[server](),
        "framework": ", ".join(frameworks) or "none that is known",
    }


def _version(name: str) -> str:
    """Return a package's name and version; "" if it is no package."""
    try:
        return f"{name} {version(name)}"
    except PackageNotFoundError:
        return ""


def _parser_of_uvicorn() -> str:
    from uvicorn.protocols.http.auto import AutoHTTPProtocol

    plain = AutoHTTPProtocol.__module__.endswith("h11_impl")
    return _version("h11" if plain else "httptools")


def _parser_of_aiohttp() -> str:
    from aiohttp.http import HttpRequestParser

    is_c = HttpRequestParser.__module__ == "aiohttp._http_parser"
    return f"aiohttp's own in {'C' if is_c else 'Python'}"


#: The servers, and what says which HTTP parser each has.
SERVERS: dict[str, Callable[[], str]] = {
    "uvicorn": _parser_of_uvicorn,
    "hypercorn": lambda: _version("h11"),
    "granian": lambda: "granian's own",
    "aiohttp": _parser_of_aiohttp,
}


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


_CALLS: dict[str, Callable[[Any, int], None]] = {
    "uvicorn": _uvicorn,
    "hypercorn": _hypercorn,
    "aiohttp": _aiohttp,
}
