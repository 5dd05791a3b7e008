"""The facts without which a figure means nothing, as one line of JSON.

    python benchmarks/harness/machine.py

It is run by the interpreter that is measured, which need not be the one
that runs `run.py`.
"""

from __future__ import annotations

import json
import os
import sys
import sysconfig
from importlib import metadata
from pathlib import Path

# The checkout's own modules, also if another fastloop is installed.
TOP = Path(__file__).resolve().parents[2]
sys.path[:1] = [str(TOP / "benchmarks"), str(TOP)]

from fastloop.cli.machine import machine  # noqa: E402
from harness import loops  # noqa: E402

PACKAGES = (
    *(name for name in loops.PYTHON_LOOPS if name != "asyncio"),
    "uvicorn",
    "httptools",
    "aiohttp",
    "aiofiles",
    "aioquic",
    "asyncpg",
    "django",
    "fastapi",
    "greenlet",
    "httpx",
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


if __name__ == "__main__":
    options = sysconfig.get_config_var("CONFIG_ARGS") or ""
    facts = {
        **machine(),
        "optimised": "--enable-optimizations" in options,
        "packages": packages(),
        "fastloop_disable": os.environ.get("FASTLOOP_DISABLE", ""),
    }
    print(json.dumps(facts))
