"""The facts without which a figure means nothing."""

from __future__ import annotations

import os
from importlib import metadata

from fastloop.cli.info import machine
from harness import loops

PACKAGES = (
    *(name for name in loops.LOOPS if name != "asyncio"),
    "uvicorn",
    "httptools",
    "aiohttp",
    "asyncpg",
    "django",
    "fastapi",
    "greenlet",
    "redis",
    "sqlalchemy",
    "websockets",
)


def packages() -> dict[str, str]:
    """Return the versions of the packages that are installed."""
    found = {}
    for name in PACKAGES:
        try:
            found[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            continue
    return found


def facts() -> dict:
    """Return what a report says of the machine and of this interpreter."""
    return {
        **machine(),
        "packages": packages(),
        "fastloop_disable": os.environ.get("FASTLOOP_DISABLE", ""),
    }
