"""What a figure depends on: the machine, its system and this interpreter."""

from __future__ import annotations

import os
import platform
import ssl
import sys
import time
from pathlib import Path
from typing import Any

__all__ = ["machine"]


def _read(path: str, key: str = "") -> str | None:
    """Return the first line of a file, or the value after a key."""
    try:
        lines = Path(path).read_text().splitlines()
    except OSError:
        return None
    found = next((line for line in lines if line.startswith(key)), None)
    if found is None:
        return None
    return found.partition(":")[2].strip() if key else found.strip()


def machine() -> dict[str, Any]:
    """Return the facts; the core of fastloop is not imported for them."""
    cpus = list(range(os.cpu_count() or 1))
    if hasattr(os, "sched_getaffinity"):
        cpus = sorted(os.sched_getaffinity(0))
    cpu = _read("/proc/cpuinfo", "model name")
    governor = "/sys/devices/system/cpu/cpu0/cpufreq/scaling_governor"
    return {
        "system": f"{platform.system()} {platform.release()}",
        "machine": platform.machine(),
        "cpu": cpu or platform.processor() or "unknown",
        "cpus": cpus,
        "libc": " ".join(platform.libc_ver()),
        "governor": _read(governor),
        "python": sys.version,
        "gil": getattr(sys, "_is_gil_enabled", lambda: True)(),
        "openssl": ssl.OPENSSL_VERSION,
        "date": time.strftime("%Y-%m-%d"),
    }
