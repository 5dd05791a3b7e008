"""The loops that are raced, by the names `run.py --loops` takes.

Every loop is made the way its own documentation says.  aiofastnet is a
library over another loop, so it only joins where there is a network: over
asyncio's loop, and over uvloop where TLS is what counts.  Alphas do not race,
nor what nobody keeps (zloop, talyn, loopmini, veloxloop).
"""

from __future__ import annotations

import importlib
import sys
from collections.abc import Callable
from importlib import metadata
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import asyncio

LOOPS = (
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
SERVER_LOOPS = tuple(name for name in LOOPS if name != "aiofastnet-uvloop")
# rloop refuses ssl=.
TLS_LOOPS = tuple(name for name in LOOPS if name != "rloop")
# aiofastnet's are not: only its transports differ.
OWN_LOOPS = tuple(name for name in SERVER_LOOPS if name != "aiofastnet")


def loop_factory(name: str) -> Callable[[], asyncio.AbstractEventLoop]:
    """Return the callable that makes a loop of the kind `name`.

    Raises ImportError when the package is not there.
    """
    if name not in OWN_LOOPS:
        module = importlib.import_module("aiofastnet")
        if name == "aiofastnet":
            return module.loop_factory()
        return module.loop_factory(loop_factory("uvloop"))
    return importlib.import_module(name).new_event_loop


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
