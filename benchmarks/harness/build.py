"""Compiles the load generator when it is missing or old.

It goes to `build/`, into a folder of this system's and C library's own: one
checkout may be used from several systems.  Without it, servers are left out of
the race, with the reason.
"""

from __future__ import annotations

import os
import platform
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

CLIENTS = Path(__file__).resolve().parents[1] / "clients"
FLAGS = ("-std=c11", "-D_GNU_SOURCE", "-O2", "-Wall", "-Wextra")
COMPILE_LIMIT = 120


class BuildError(Exception):
    """The generator cannot be compiled; the text says why, in one line."""


def path() -> Path:
    """Return where the generator is, or will be, on this system."""
    try:
        libc = os.confstr("CS_GNU_LIBC_VERSION") or ""
    except (AttributeError, ValueError, OSError):
        libc = ""
    parts = [platform.system(), platform.machine(), *libc.split()]
    return CLIENTS.parent / "build" / "-".join(parts).lower() / "load"


def _compiler() -> list[str]:
    for candidate in (os.environ.get("CC"), "cc", "gcc", "clang"):
        if candidate and shutil.which(shlex.split(candidate)[0]):
            return shlex.split(candidate)
    raise BuildError("no C compiler was found (cc, gcc, clang or $CC)")


def _run(command: list[str]) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        command, capture_output=True, text=True, timeout=COMPILE_LIMIT
    )


def _openssl_flags() -> list[str]:
    if not shutil.which("pkg-config"):
        raise BuildError("pkg-config was not found")
    asked = _run(["pkg-config", "--cflags", "--libs", "openssl"])
    if asked.returncode:
        raise BuildError("pkg-config does not know openssl")
    return shlex.split(asked.stdout)


def build() -> None:
    """Compile the generator if it is stale.

    Raises BuildError when that cannot be done.
    """
    target = path()
    if target.exists():
        age = target.stat().st_mtime
        if all(part.stat().st_mtime <= age for part in CLIENTS.iterdir()):
            return
    target.parent.mkdir(parents=True, exist_ok=True)
    # Another run may be using the old program: it is replaced, not changed.
    fresh = target.with_suffix(f".{os.getpid()}")
    flags = [*FLAGS, *shlex.split(os.environ.get("CFLAGS", ""))]
    files = [*map(str, CLIENTS.glob("*.c")), "-o", str(fresh)]
    made = _run([*_compiler(), *flags, *files, *_openssl_flags()])
    if made.returncode:
        lines = made.stderr.strip().splitlines() or ["no message"]
        first = next((line for line in lines if "error" in line), lines[0])
        raise BuildError(f"the load generator does not compile: {first}")
    fresh.replace(target)


def problem() -> str:
    """Compile the generator if it is stale; return why that fails."""
    if sys.platform != "linux":
        return "it needs Linux"
    try:
        build()
    except BuildError as error:
        return str(error)
    return ""
