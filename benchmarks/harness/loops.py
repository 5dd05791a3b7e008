"""The loops that are raced, by the names `run.py --loops` takes.

Every loop is made the way its own documentation says.  aiofastnet is a
library over asyncio's loop, so it only joins where there is a network.
c-epoll and c-uv are no Python loops: they are the plain C echo servers of
`limits/`, raced so that a table says how far from the floor a loop is.

A package that is installed wins over the checkout this file lies in; the
checkout is only looked at last, so that a loop built in place is found.
"""

from __future__ import annotations

import importlib
import sys
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import asyncio

ROOT = Path(__file__).resolve().parents[2]

PYTHON_LOOPS = (
    "asyncio",
    "uvloop",
    "zuvloop",
    "rloop",
    "rsloop",
    "aiofastnet",
    "fastloop",
)
C_SERVERS = ("c-epoll", "c-uv")
LOOPS = PYTHON_LOOPS + C_SERVERS

# Not a loop of its own: only its transports differ from asyncio's.
TRANSPORTS_ONLY = ("aiofastnet",)


def find_checkout() -> None:
    """Make packages built in place in this checkout importable, last."""
    if str(ROOT) not in sys.path:
        sys.path.append(str(ROOT))


def loop_factory(name: str) -> Callable[[], asyncio.AbstractEventLoop]:
    """Return the callable that makes a loop of the kind `name`.

    For a plain C server, which has none, calling it is an error.  Raises
    ImportError when the package is not there.
    """
    if name in C_SERVERS:
        return _no_loop
    find_checkout()
    module = importlib.import_module(name)
    if name == "aiofastnet":
        return module.loop_factory()
    return module.new_event_loop


def _no_loop() -> asyncio.AbstractEventLoop:
    raise TypeError("a plain C server has no loop")


def version_of(name: str) -> str:
    """Return the version of the loop `name`, having made one of it.

    Raises whatever importing it or making a loop raises.
    """
    factory = loop_factory(name)
    factory().close()
    if name == "asyncio":
        return sys.version.split()[0]
    version = getattr(importlib.import_module(name), "__version__", None)
    if version is None:
        from importlib.metadata import version as metadata_version

        version = metadata_version(name)
    return str(version)
