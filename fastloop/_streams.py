"""Python functions that the C transports call, at most once a connection.

They run when a program requests a transport's socket, or makes a mistake.  The
data path never calls them.
"""

from __future__ import annotations

import collections
import logging
import socket
import sys
import weakref
from asyncio import base_events, constants, trsock

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

__all__ = [
    "SENDFILE_COMPATIBLE",
    "SENDFILE_FALLBACK",
    "TransportSocket",
    "check_ssl_socket",
    "closed_socket",
    "log_event",
    "own_socket",
    "shown_buffer",
    "socket_family",
    "socket_kind",
    "socket_type",
    "warn_lost",
]

SENDFILE_COMPATIBLE = constants._SendfileMode.TRY_NATIVE
SENDFILE_FALLBACK = constants._SendfileMode.FALLBACK  # for TLS

_logger = logging.getLogger("asyncio")


#: The class whose methods the C code may replace by system calls.  Kept here
#: because a test may replace the name socket.socket.
socket_type = socket.socket
#: Descriptors of its base class, which return ints; the properties of
#: socket.socket itself make enum members of them.
socket_family = socket.SocketType.__dict__["family"]
socket_kind = socket.SocketType.__dict__["type"]
check_ssl_socket = base_events._check_ssl_socket  # type: ignore[attr-defined]


#: Values and bound methods that a TransportSocket copies from its socket at
#: the first access: an HTTP client may read them 50 times a request.
_KEPT = (
    "family",
    "fileno",
    "get_inheritable",
    "getpeername",
    "getsockname",
    "getsockopt",
    "proto",
    "setsockopt",
    "type",
)


class TransportSocket(trsock.TransportSocket):
    """The socket object that a transport's ``get_extra_info()`` returns.

    A program that takes the descriptor from it may send or shut down without
    the transport's knowledge.  So the transport sends at once from then on,
    without corking.  Queries and options do not have this effect.
    """

    __slots__ = ("_socket", "_transport", *_KEPT)

    fileno: Callable[[], int]
    get_inheritable: Callable[[], bool]
    getpeername: Callable[[], Any]
    getsockname: Callable[[], Any]
    getsockopt: Callable[..., Any]
    setsockopt: Callable[..., None]

    def __init__(self, sock: socket.socket, transport: Any) -> None:
        self._socket = sock
        # Weak: the transport refers to this object, and a cycle would need
        # the garbage collector.
        self._transport = weakref.ref(transport)

    @property
    def _sock(self) -> socket.socket:  # for fileno(), dup() and shutdown()
        transport = self._transport()
        if transport is not None:
            _ = transport._sock_fd  # makes the transport stop corking
        return self._socket

    def __getattr__(self, name: str) -> Any:
        if name not in _KEPT:
            raise AttributeError(
                f"{type(self).__name__!r} object has no attribute {name!r}"
            )
        value = getattr(self._sock if name == "fileno" else self._socket, name)
        setattr(self, name, value)
        return value

    def __repr__(self) -> str:
        return repr(trsock.TransportSocket(self._socket))


def own_socket(fd: int) -> socket.socket:
    """Return a non-blocking socket object, which owns the descriptor."""
    sock = socket_type(fileno=fd)
    try:
        sock.setblocking(False)
    except BaseException:
        sock.detach()  # the descriptor stays the caller's
        raise
    return sock


def closed_socket() -> trsock.TransportSocket:
    """Return a closed socket, for a closed transport that never made one."""
    sock = socket_type()
    sock.close()
    return trsock.TransportSocket(sock)


def shown_buffer(waiting: list[Any], datagrams: bool) -> Any:
    """Return the unsent data in the type of asyncio's ``_buffer``."""
    if not datagrams and sys.version_info < (3, 12):
        return bytearray().join(waiting)
    return collections.deque(waiting)


def log_event(transport: object, event: str) -> None:
    """Log a transport's event, for a loop in debug mode."""
    _logger.debug("%r %s", transport, event)


def warn_lost() -> None:
    """Log asyncio's warning about writing to a connection that is lost."""
    _logger.warning("socket.send() raised exception.")
