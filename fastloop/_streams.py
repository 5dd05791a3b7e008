"""What the C streams ask of Python, once a connection or less.

Everything here runs when a program asks a transport for its socket, or makes
a mistake; the data path never comes here.
"""

from __future__ import annotations

import collections
import logging
import socket
import sys
from asyncio import base_events, constants
from asyncio.trsock import TransportSocket

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

__all__ = [
    "SENDFILE_COMPATIBLE",
    "TransportSocket",
    "check_ssl_socket",
    "closed_socket",
    "log_event",
    "own_socket",
    "shown_buffer",
    "socket_type",
    "warn_lost",
]

SENDFILE_COMPATIBLE = constants._SendfileMode.TRY_NATIVE

_logger = logging.getLogger("asyncio")


#: The class whose calls the C code may make in its stead.
socket_type = socket.socket
check_ssl_socket = base_events._check_ssl_socket


def own_socket(fd: int) -> socket.socket:
    """A non-blocking socket object that owns a descriptor from now on."""
    sock = socket.socket(fileno=fd)
    try:
        sock.setblocking(False)
    except BaseException:
        sock.detach()  # the descriptor stays the caller's
        raise
    return sock


def closed_socket() -> TransportSocket:
    """What a closed transport answers for a socket nobody asked for before."""
    sock = socket.socket()
    sock.close()
    return TransportSocket(sock)


def shown_buffer(waiting: list[Any], datagrams: bool) -> Any:
    """What waits to be sent, as asyncio's ``transport._buffer`` has it."""
    if not datagrams and sys.version_info < (3, 12):
        return bytearray().join(waiting)
    return collections.deque(waiting)


def log_event(transport: object, event: str) -> None:
    """Log what befell a transport, for a loop in debug mode."""
    _logger.debug("%r %s", transport, event)


def warn_lost() -> None:
    """Log asyncio's warning about writing to a connection that is lost."""
    _logger.warning("socket.send() raised exception.")
