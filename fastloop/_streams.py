"""What the C streams ask of Python, once a connection or less.

Everything here runs when a program asks a transport for its socket, or makes
a mistake; the data path never comes here.
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
SENDFILE_FALLBACK = constants._SendfileMode.FALLBACK  # of TLS

_logger = logging.getLogger("asyncio")


#: The class whose calls the C code may make in its stead, whatever a test
#: puts in its place.
socket_type = socket.socket
#: Its base's numbers, of which its own properties make enumerations.
socket_family = socket.SocketType.__dict__["family"]
socket_kind = socket.SocketType.__dict__["type"]
check_ssl_socket = base_events._check_ssl_socket  # type: ignore[attr-defined]


#: What a TransportSocket takes from its socket when it is asked first, values
#: and bound methods: an HTTP client may ask 50 times a request.
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
    """The socket object that a stream's ``get_extra_info()`` answers.

    Whoever takes the descriptor out of it may send or shut down beside the
    transport, which therefore sends at once from then on.  To ask the socket
    something, or to set an option, changes nothing.
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
        # The transport keeps this object, and shall die without a collector.
        self._transport = weakref.ref(transport)

    @property
    def _sock(self) -> socket.socket:  # of fileno(), dup() and shutdown()
        transport = self._transport()
        if transport is not None:
            _ = transport._sock_fd  # which makes it send at once
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
    """A non-blocking socket object that owns a descriptor from now on."""
    sock = socket_type(fileno=fd)
    try:
        sock.setblocking(False)
    except BaseException:
        sock.detach()  # the descriptor stays the caller's
        raise
    return sock


def closed_socket() -> trsock.TransportSocket:
    """What a closed transport answers for a socket nobody asked for before."""
    sock = socket_type()
    sock.close()
    return trsock.TransportSocket(sock)


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
