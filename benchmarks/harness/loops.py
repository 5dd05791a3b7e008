"""The loops that are raced, by the names `run.py --loops` takes.

Every loop is made the way its own documentation says.  aiofastnet is a
library over another loop, so it only joins where there is a network: over
asyncio's loop, and over uvloop where TLS is what counts.  Alphas do not race,
nor what nobody keeps (zloop, talyn, loopmini, veloxloop).
c-epoll and c-tls are no Python loops: they are the plain C
servers of `limits/`, raced so that a table says how far from the floor a
loop is.
"""

from __future__ import annotations

import importlib
import sys
from collections.abc import Callable
from importlib import metadata
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import asyncio

PYTHON_LOOPS = (
    "asyncio",
    "uvloop",
    "zuvloop",
    "rloop",
    "rsloop",
    "blazio",
    "aiofastnet",
    "aiofastnet-uvloop",
    "fastloop",
)
# What a case of a server is raced on, unless it is one of TLS.
SERVER_LOOPS = tuple(
    name for name in PYTHON_LOOPS if name != "aiofastnet-uvloop"
)
# rloop refuses ssl=.
TLS_LOOPS = tuple(name for name in PYTHON_LOOPS if name != "rloop")
# The plain C servers, and the programs of build.py that they are.
C_SERVERS = {"c-epoll": "c_epoll", "c-tls": "c_tls"}
LOOPS = (*PYTHON_LOOPS, *C_SERVERS)
# Not loops of their own: only the transports differ.
TRANSPORTS_ONLY = ("aiofastnet", "aiofastnet-uvloop")


def loop_factory(name: str) -> Callable[[], asyncio.AbstractEventLoop]:
    """Return the callable that makes a loop of the kind `name`.

    For a plain C server, which has none, calling it is an error.  Raises
    ImportError when the package is not there.
    """
    if name in C_SERVERS:
        return _no_loop
    if name in TRANSPORTS_ONLY:
        module = importlib.import_module("aiofastnet")
        if name == "aiofastnet":
            return module.loop_factory()
        return module.loop_factory(loop_factory("uvloop"))
    return importlib.import_module(name).new_event_loop


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
    name = name.removesuffix("-uvloop")
    own = getattr(importlib.import_module(name), "__version__", None)
    return str(own or metadata.version(name))
