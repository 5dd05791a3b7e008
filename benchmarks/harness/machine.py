"""The facts without which a figure means nothing, as one line of JSON.

    python benchmarks/harness/machine.py

It is run by the interpreter that is measured, which need not be the one
that runs `run.py`.
"""

from __future__ import annotations

import datetime
import json
import os
import platform
import ssl
import sys
import sysconfig
from importlib import metadata
from pathlib import Path

PACKAGES = (
    "uvloop",
    "zuvloop",
    "rloop",
    "rsloop",
    "aiofastnet",
    "fastloop",
    "uvicorn",
    "httptools",
    "aiohttp",
    "aiofiles",
    "asyncpg",
    "fastapi",
    "httpx",
    "redis",
    "websockets",
)


def _first_line(path: str, key: str = "") -> str | None:
    try:
        text = Path(path).read_text()
    except OSError:
        return None
    for line in text.splitlines():
        if line.startswith(key):
            return line.split(":", 1)[1].strip() if key else line.strip()
    return None


def _packages() -> dict[str, str]:
    found = {}
    for name in PACKAGES:
        try:
            found[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            continue
    return found


def facts() -> dict:
    """Return what is known of this machine and this interpreter."""
    try:
        cpus = sorted(os.sched_getaffinity(0))
    except AttributeError:
        cpus = list(range(os.cpu_count() or 1))
    gil = getattr(sys, "_is_gil_enabled", lambda: True)()
    cpu = _first_line("/proc/cpuinfo", "model name")
    return {
        "system": f"{platform.system()} {platform.release()}",
        "machine": platform.machine(),
        "cpu": cpu or platform.processor(),
        "cpus": cpus,
        "libc": " ".join(platform.libc_ver()),
        "governor": _first_line(
            "/sys/devices/system/cpu/cpu0/cpufreq/scaling_governor"
        ),
        "python": sys.version,
        "gil": gil,
        "optimised": "--enable-optimizations"
        in (sysconfig.get_config_var("CONFIG_ARGS") or ""),
        "openssl": ssl.OPENSSL_VERSION,
        "date": datetime.date.today().isoformat(),
        "packages": _packages(),
        "fastloop_disable": os.environ.get("FASTLOOP_DISABLE", ""),
    }


if __name__ == "__main__":
    print(json.dumps(facts()))
