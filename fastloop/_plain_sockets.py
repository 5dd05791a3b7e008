"""Which sockets the core serves by system calls instead of their methods."""

from __future__ import annotations

import socket

from . import _core, _streams

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

#: What the core's transports do by system calls, and asyncio's by methods of
#: the socket.  ``src/core/overrides.c`` has the same names.
STREAM_CALLS = (
    "recv",
    "recv_into",
    "send",
    "sendmsg",
    "getpeername",
    "getsockname",
    "setsockopt",
    "shutdown",
)
DATAGRAM_CALLS = ("recvfrom", "send", "sendto", "getpeername", "getsockname")

_system_accept = _streams.socket_type.accept


def accepts_as_a_socket(sock: Any) -> bool:
    """Whether accept() of a listening socket is that of socket.socket.

    True for gunicorn's objects, which wrap a socket and delegate to it what
    they do not define.  The accepted sockets are then socket.socket objects:
    accept() makes them of the class that the module has under that name.
    """
    real = getattr(getattr(sock, "accept", None), "__self__", None)
    return (
        socket.socket is _streams.socket_type
        and isinstance(real, _streams.socket_type)
        and type(real).accept is _system_accept
        and type(real).fileno is socket.SocketType.fileno
        and _core.is_plain_class(_streams.socket_type)
        and real.fileno() == sock.fileno()
    )


def leaves_to_system(sock: Any, *calls: str) -> bool:
    """Whether a socket inherits these calls, and fileno(), unchanged.

    Only then may the core replace the calls by system calls.  An object of a
    subclass may have a call of its own in its __dict__.
    """
    kind = type(sock)
    if _core.is_plain_class(kind):
        return True
    own = getattr(sock, "__dict__", {})
    return all(
        call not in own
        and getattr(kind, call, None) is getattr(socket.SocketType, call)
        for call in (*calls, "fileno")
    )
