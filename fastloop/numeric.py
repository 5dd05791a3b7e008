"""Addresses that need no resolver: literals with a numeric port.

``getaddrinfo`` of '127.0.0.1' is what most programs ask for, and a thread for
it costs more than the connection.  What is answered here is exactly what
``socket.getaddrinfo`` would answer; everything else is left to it.
"""

from __future__ import annotations

import os
import socket
from typing import Any

_KINDS = {
    (socket.SOCK_STREAM, 0): socket.IPPROTO_TCP,
    (socket.SOCK_STREAM, socket.IPPROTO_TCP): socket.IPPROTO_TCP,
    (socket.SOCK_DGRAM, 0): socket.IPPROTO_UDP,
    (socket.SOCK_DGRAM, socket.IPPROTO_UDP): socket.IPPROTO_UDP,
}

_ENABLED = "literal_dns" not in os.environ.get("FASTLOOP_DISABLE", "")

_inet_pton = socket.inet_pton
_AF_INET = socket.AF_INET
_AF_INET6 = socket.AF_INET6


def numeric_addresses(
    host: Any, port: Any, family: int, type: int, proto: int, flags: int
) -> list[tuple[Any, ...]] | None:
    """The answer of ``socket.getaddrinfo`` for a literal, else None.

    host is a str without a scope, port an int from 0 to 65535 or its decimal
    str; type must be SOCK_STREAM or SOCK_DGRAM, for otherwise there is more
    than one answer, and no flag but AI_PASSIVE or AI_NUMERICHOST may be set.
    """
    if not _ENABLED or host.__class__ is not str:
        return None
    number = _KINDS.get((type, proto))
    if number is None or flags & ~_PLAIN_FLAGS:
        return None
    if port.__class__ is not int:
        if port.__class__ is not str or not (
            port.isascii() and port.isdigit()
        ):
            return None
        port = int(port)
    if not 0 <= port <= 65535:
        return None
    if ":" in host:
        if family not in _SIX or "%" in host:
            return None
        found, address = _AF_INET6, (host, port, 0, 0)
    else:
        if family not in _FOUR:
            return None
        found, address = _AF_INET, (host, port)
    try:
        packed = _inet_pton(found, host)
    except (OSError, ValueError):
        return None
    if found is _AF_INET6:
        # The resolver writes the address its own way.
        address = (socket.inet_ntop(found, packed), port, 0, 0)
    return [(found, socket.SocketKind(type), number, "", address)]


_PLAIN_FLAGS = socket.AI_PASSIVE | socket.AI_NUMERICHOST
_FOUR = (socket.AF_UNSPEC, _AF_INET)
_SIX = (socket.AF_UNSPEC, _AF_INET6)
