"""What a figure depends on: the machine, its system and this interpreter."""

from __future__ import annotations

import os
import platform
import re
import ssl
import sys
import time
from pathlib import Path
from typing import Any

from .worker import has_gil

__all__ = ["machine", "processors", "text_of"]


def text_of(path: str) -> str:
    """Return a file's text, "" if it cannot be read."""
    try:
        return Path(path).read_text().strip()
    except OSError:
        return ""


def processors() -> list[int]:
    """Return the processors that this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return sorted(os.sched_getaffinity(0))
    return list(range(os.cpu_count() or 1))


def machine() -> dict[str, Any]:
    """Return the facts; the core of fastloop is not imported for them."""
    cpu = re.search(r"^model name\s*: (.*\S)", text_of("/proc/cpuinfo"), re.M)
    governor = "/sys/devices/system/cpu/cpu0/cpufreq/scaling_governor"
    return {
        "system": f"{platform.system()} {platform.release()}",
        "machine": platform.machine(),
        "cpu": cpu[1] if cpu else platform.processor() or "unknown",
        "cpus": processors(),
        "libc": " ".join(platform.libc_ver()),
        "governor": text_of(governor) or None,
        "python": sys.version,
        "gil": has_gil(),
        "openssl": ssl.OPENSSL_VERSION,
        "date": time.strftime("%Y-%m-%d"),
    }
