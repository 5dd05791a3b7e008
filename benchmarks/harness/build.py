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
from dataclasses import dataclass
from pathlib import Path

HERE = Path(__file__).resolve().parents[1]
FLAGS = ("-std=c11", "-D_GNU_SOURCE", "-O2", "-Wall", "-Wextra")
COMPILE_LIMIT = 120


@dataclass(frozen=True)
class Program:
    """A C program: its sources, and the pkg-config package it needs."""

    sources: tuple[str, ...]
    headers: tuple[str, ...]
    package: str = ""


PROGRAMS = {
    "echo_load": Program(
        ("clients/echo_load.c", "clients/load.c"), ("clients/load.h",)
    ),
    "bulk_load": Program(
        ("clients/bulk_load.c", "clients/load.c"), ("clients/load.h",)
    ),
    "tail_load": Program(
        ("clients/tail_load.c", "clients/load.c"),
        ("clients/load.h",),
        "openssl",
    ),
    "http_load": Program(
        ("clients/http_load.c", "clients/load.c"), ("clients/load.h",)
    ),
    "tls_load": Program(
        ("clients/tls_load.c", "clients/load.c"),
        ("clients/load.h",),
        "openssl",
    ),
    "c_epoll": Program(
        ("limits/c_epoll.c", "limits/limit.c"), ("limits/limit.h",)
    ),
    "c_tls": Program(
        ("limits/c_tls.c", "limits/limit.c"), ("limits/limit.h",), "openssl"
    ),
    "c_uv": Program(
        ("limits/c_uv.c", "limits/limit.c"), ("limits/limit.h",), "libuv"
    ),
}


class BuildError(Exception):
    """A program cannot be compiled; the text says why, in one line."""


def folder() -> Path:
    """Return the folder for programs that run on this system."""
    try:
        libc = os.confstr("CS_GNU_LIBC_VERSION") or ""
    except (AttributeError, ValueError, OSError):
        libc = ""
    parts = [platform.system(), platform.machine(), *libc.split()]
    return HERE / "build" / "-".join(parts).lower()


def path(name: str) -> Path:
    """Return where the program `name` is, or will be."""
    return folder() / name


def _compiler() -> list[str]:
    for candidate in (os.environ.get("CC"), "cc", "gcc", "clang"):
        if candidate and shutil.which(shlex.split(candidate)[0]):
            return shlex.split(candidate)
    raise BuildError("no C compiler was found (cc, gcc, clang or $CC)")


def _package_flags(package: str) -> list[str]:
    if not package:
        return []
    if not shutil.which("pkg-config"):
        raise BuildError("pkg-config was not found")
    asked = subprocess.run(
        ["pkg-config", "--cflags", "--libs", package],
        capture_output=True,
        text=True,
        timeout=COMPILE_LIMIT,
    )
    if asked.returncode:
        raise BuildError(f"pkg-config does not know {package}")
    return shlex.split(asked.stdout)


def build(name: str) -> Path:
    """Compile the program `name` if it is stale; return its path.

    Raises BuildError when that cannot be done.
    """
    program = PROGRAMS[name]
    target = path(name)
    inputs = [HERE / part for part in program.sources + program.headers]
    if target.exists():
        age = target.stat().st_mtime
        if all(part.stat().st_mtime <= age for part in inputs):
            return target
    target.parent.mkdir(parents=True, exist_ok=True)
    # Another run may be using the old program: it is replaced, not changed.
    fresh = target.with_suffix(f".{os.getpid()}")
    command = [
        *_compiler(),
        *FLAGS,
        *shlex.split(os.environ.get("CFLAGS", "")),
        *(str(HERE / source) for source in program.sources),
        "-o",
        str(fresh),
        *_package_flags(program.package),
    ]
    made = subprocess.run(
        command, capture_output=True, text=True, timeout=COMPILE_LIMIT
    )
    if made.returncode:
        lines = made.stderr.strip().splitlines() or ["no message"]
        first = next((line for line in lines if "error" in line), lines[0])
        raise BuildError(f"{name} does not compile: {first}")
    fresh.replace(target)
    return target
