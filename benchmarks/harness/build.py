"""Compiles the C programs of the benchmarks when they are missing or old.

They go to `build/`, into a folder of this system's and C library's own: one
checkout may be used from several systems.  What cannot be compiled is left
out of the race, with the reason.
"""

from __future__ import annotations

import os
import platform
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

HERE = Path(__file__).resolve().parents[1]
FLAGS = ("-std=c11", "-D_GNU_SOURCE", "-O2", "-Wall", "-Wextra")
COMPILE_LIMIT = 120

#: Each program and its library.
PROGRAMS = {
    "echo_load": "",
    "tail_load": "openssl",
    "http_load": "",
    "tls_load": "openssl",
}


class BuildError(Exception):
    """A program cannot be compiled; the text says why, in one line."""


def path(name: str) -> Path:
    """Return where the program `name` is, or will be, on this system."""
    try:
        libc = os.confstr("CS_GNU_LIBC_VERSION") or ""
    except (AttributeError, ValueError, OSError):
        libc = ""
    parts = [platform.system(), platform.machine(), *libc.split()]
    return HERE / "build" / "-".join(parts).lower() / name


def _compiler() -> list[str]:
    for candidate in (os.environ.get("CC"), "cc", "gcc", "clang"):
        if candidate and shutil.which(shlex.split(candidate)[0]):
            return shlex.split(candidate)
    raise BuildError("no C compiler was found (cc, gcc, clang or $CC)")


def _run(command: list[str]) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        command, capture_output=True, text=True, timeout=COMPILE_LIMIT
    )


def _package_flags(package: str) -> list[str]:
    if not package:
        return []
    if not shutil.which("pkg-config"):
        raise BuildError("pkg-config was not found")
    asked = _run(["pkg-config", "--cflags", "--libs", package])
    if asked.returncode:
        raise BuildError(f"pkg-config does not know {package}")
    return shlex.split(asked.stdout)


def build(name: str) -> Path:
    """Compile the program `name` if it is stale; return its path.

    Raises BuildError when that cannot be done.
    """
    package, target = PROGRAMS[name], path(name)
    shared = HERE / "clients" / "load"
    sources = [shared.with_name(f"{name}.c"), shared.with_suffix(".c")]
    if target.exists():
        age = target.stat().st_mtime
        inputs = [*sources, shared.with_suffix(".h")]
        if all(part.stat().st_mtime <= age for part in inputs):
            return target
    target.parent.mkdir(parents=True, exist_ok=True)
    # Another run may be using the old program: it is replaced, not changed.
    fresh = target.with_suffix(f".{os.getpid()}")
    flags = [*FLAGS, *shlex.split(os.environ.get("CFLAGS", ""))]
    files = [*map(str, sources), "-o", str(fresh)]
    made = _run([*_compiler(), *flags, *files, *_package_flags(package)])
    if made.returncode:
        lines = made.stderr.strip().splitlines() or ["no message"]
        first = next((line for line in lines if "error" in line), lines[0])
        raise BuildError(f"{name} does not compile: {first}")
    fresh.replace(target)
    return target


def problem(name: str) -> str:
    """Compile the program `name` if it is stale; return why that fails."""
    if sys.platform != "linux":
        return "it needs Linux"
    try:
        build(name)
    except BuildError as error:
        return str(error)
    return ""
