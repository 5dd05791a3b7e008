"""`info`: versions, limits, and which loop asyncio gives a program here."""

import json
import os
import platform
import re
import ssl
import sys
import sysconfig
import time
from contextlib import suppress
from pathlib import Path
from typing import Any

from fastloop._loop._environment import (
    NAME,
    disabled_names,
    has_gil,
    other_installed,
)

from .commands import Refused, wrapped
from .options import parser_of

#: Packages that have a loop of this kind, besides fastloop.
OTHER_LOOPS = ("uvloop", "zuvloop", "rloop", "rsloop", "blazio")


def main(words: list[str]) -> int:
    """Print the facts; return 0."""
    parser = parser_of("info", "")
    parser.add_argument("--json", action="store_true", help="print JSON")
    as_json = parser.parse_args(words).json
    found = facts() | limits() | {"default loop": _default_loop()}
    if fault := other_installed():
        found["to mend"] = fault
    if as_json:
        print(json.dumps(found, indent=2))
        return 0
    width = max(map(len, found))
    for name, value in found.items():
        if isinstance(value, dict):
            value = ", ".join(f"{one} {text}" for one, text in value.items())
        print(wrapped(f"{name:<{width}}  {value}", " " * (width + 2)))
    return 0


def facts() -> dict[str, Any]:
    """Return what a bug report or a measurement needs to know.

    Raises Refused if no loop can be made.
    """
    import fastloop

    try:
        if fastloop.is_native:
            about_loop = {
                "libuv": fastloop.libuv_version(),
                "tls engine": tls_engine(),
            }
        else:
            from fastloop._loop._windows import ABOUT

            about_loop = {"loop": ABOUT}
    except (ImportError, OSError, ValueError) as exc:
        raise Refused(f"fastloop cannot be used: {exc}") from exc
    found = machine()
    return {
        "fastloop": fastloop.__version__,
        "python": f"{platform.python_version()} ({_build(found['gil'])})",
        **about_loop,
        "openssl": found["openssl"],
        "system": ", ".join(
            (found["system"], found["machine"], found["libc"] or "no glibc")
        ),
        "loops": installed_loops(),
    }


def _build(gil: bool) -> str:
    words = [sys.implementation.name, *([] if gil else ["without the GIL"])]
    if hasattr(sys, "gettotalrefcount"):
        words.append("debug")
    return ", ".join(words)


def tls_engine() -> str:
    """Return how a loop does TLS: the engine's name, and what it calls."""
    import fastloop

    loop = fastloop.Loop()  # also with FASTLOOP_DISABLE=loop
    is_native = loop._has_native_tls
    loop.close()
    if not is_native:
        return "asyncio's, in Python"
    from fastloop._loop._tls import _library

    # As src/tls/adapter.c chooses.
    free_threaded = sysconfig.get_config_var("Py_GIL_DISABLED")
    if not _library or free_threaded or "libssl" in disabled_names():
        return "sslobject, in C over Python's ssl module"
    return "libssl, in C over the OpenSSL of Python's ssl module"


def installed_loops() -> dict[str, str]:
    """Return asyncio and each installed module that makes loops."""
    from importlib.metadata import PackageNotFoundError, version
    from importlib.util import find_spec

    found = {"asyncio": platform.python_version()}
    for name in ("fastloop", *OTHER_LOOPS):
        if find_spec(name) is None:
            continue
        try:
            found[name] = version(NAME if name == "fastloop" else name)
        except PackageNotFoundError:
            found[name] = "not installed as a package"
    return found


def limits() -> dict[str, str]:
    """Return what the system and the environment limit a server by."""
    found = {"CPUs": f"{len(processors())}"}
    with suppress(ImportError):  # on Windows
        import resource

        soft, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
        is_unlimited = soft == resource.RLIM_INFINITY
        found["descriptors"] = (
            "any number" if is_unlimited else f"{soft:,} may be open"
        )
    for name in ("PYTHONASYNCIODEBUG", "PYTHONDEVMODE"):
        if os.environ.get(name):
            found["debug mode"] = f"on, by {name}: every loop is slow"
    return found


def _default_loop() -> str:
    """Return the loop that `asyncio.run` gives here, and who chose it."""
    import asyncio

    from fastloop._loop import _private

    loop = asyncio.new_event_loop()
    loop.close()
    kind = f"{type(loop).__module__}.{type(loop).__qualname__}"
    policy = _private.policy()
    if policy is not None and type(policy) is not _private.DefaultPolicy:
        chosen = (
            f"set by the policy {type(policy).__module__}."
            f"{type(policy).__qualname__}"
        )
    elif kind.startswith("asyncio."):
        chosen = "asyncio's own, unless the program chooses fastloop"
    else:
        chosen = "put in the place of asyncio's own"
    return f"{kind}, {chosen}"


def processors() -> list[int]:
    """Return the processors that this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return sorted(os.sched_getaffinity(0))
    return list(range(os.cpu_count() or 1))


def machine() -> dict[str, Any]:
    """Return the facts; the core of fastloop is not imported for them."""
    cpu = None
    with suppress(OSError):
        text = Path("/proc/cpuinfo").read_text()
        cpu = re.search(r"^model name\s*: (.*\S)", text, re.M)
    return {
        "system": f"{platform.system()} {platform.release()}",
        "machine": platform.machine(),
        "cpu": cpu[1] if cpu else platform.processor() or "unknown",
        "cpus": processors(),
        "libc": " ".join(filter(None, platform.libc_ver())),
        "python": sys.version,
        "gil": has_gil(),
        "openssl": ssl.OPENSSL_VERSION,
        "date": time.strftime("%Y-%m-%d"),
    }
