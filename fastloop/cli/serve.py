"""The process that serves a web application while it is measured.

    KIND PORT REPORT CPU APP

uvicorn serves it.  CPU is the processor to stay on, or "".
"""

from __future__ import annotations

import asyncio
import os
import signal
import sys
from importlib import import_module
from typing import Any

from .client import HOST
from .default_loop import set_default_loop
from .worker import RAN, report_at_exit

__all__ = ["main"]


def main() -> None:
    """Serve until SIGTERM; see the module."""
    kind, port, report, cpu, app = sys.argv[1:]
    if cpu:
        os.sched_setaffinity(0, {int(cpu)})
    set_default_loop(kind, f"{report}{RAN}")
    report_at_exit(report)
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
    sys.path.insert(0, os.getcwd())
    sys.argv[1:] = []
    target = _load(app)
    import uvicorn

    config = uvicorn.Config(
        target, host=HOST, port=int(port), log_level="error", access_log=False
    )
    asyncio.run(uvicorn.Server(config).serve())


def _load(app: str) -> Any:
    module, _, names = app.partition(":")
    found: Any = import_module(module)
    for name in names.split("."):
        if not hasattr(found, name):
            sys.exit(f"{module} has no {names}")
        found = getattr(found, name)
    return found
