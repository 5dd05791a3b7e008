"""Compiles the load generator when it is missing or old."""

from __future__ import annotations

import os
import platform
import shlex
import subprocess
import sys
from pathlib import Path

BENCHMARKS = Path(__file__).resolve().parents[1]
SOURCE = BENCHMARKS / "clients" / "load.c"
FLAGS = ("-std=c11", "-D_GNU_SOURCE", "-O2", "-Wall", "-Wextra")
LIBRARIES = ("-lssl", "-lcrypto")


def path() -> Path:
    """Return where the generator is, or will be, on this system.

    One checkout may be used from several systems.
    """
    return BENCHMARKS / "build" / platform.platform() / "load"


def problem() -> str:
    """Compile the generator if it is stale; return why that fails."""
    if sys.platform != "linux":
        return "it needs Linux"
    target = path()
    if target.exists() and target.stat().st_mtime >= SOURCE.stat().st_mtime:
        return ""
    target.parent.mkdir(parents=True, exist_ok=True)
    # Another run may be using the old program: it is replaced, not changed.
    fresh = target.with_suffix(f".{os.getpid()}")
    compiler = shlex.split(os.environ.get("CC") or "cc")
    words = [*compiler, *FLAGS, str(SOURCE), "-o", str(fresh), *LIBRARIES]
    try:
        subprocess.run(words, check=True, capture_output=True, text=True)
    except OSError:
        return "no C compiler was found (cc or $CC)"
    except subprocess.CalledProcessError as error:
        first = error.stderr.partition("\n")[0]
        return f"the load generator does not compile: {first}"
    fresh.replace(target)
    return ""
