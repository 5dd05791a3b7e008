"""What is still CPython's own, and what an application has replaced.

For some functions of the standard library, and for methods of sockets, the
core has code of its own.  If an application replaces one, its replacement must
be called.
"""

from __future__ import annotations

import socket
import types

from .. import _core
from . import _core_helpers

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

#: What the core's transports do by system calls, and asyncio's by methods of
#: the socket.  ``src/core/overrides.c`` has the same names.
STREAM_CALLS = """
    fileno recv recv_into send sendmsg getpeername getsockname setsockopt
    shutdown
""".split()
DATAGRAM_CALLS = "fileno recvfrom send sendto getpeername getsockname".split()


def is_defined_in(module: types.ModuleType, function: object) -> bool:
    """Whether a function is a module's own, and not a replacement.

    A function that was set in the module, or on its class, has the globals of
    another module, whenever that was done.  The type must be exactly that of
    functions: a tracer's wrapper has the attributes of the function that it
    wraps.  Nor is one that ddtrace gave other code: see ``src/py/methods.h``.
    In C this is fl_method_is_from().
    """
    if type(function) is not types.FunctionType:
        return False
    return function.__globals__ is vars(module) and bool(
        function.__code__.co_names
    )


def accepts_as_a_socket(sock: Any) -> bool:
    """Whether accept() of a listening socket is CPython's own.

    True for gunicorn's objects, which wrap a socket and delegate to it what
    they do not define.  The accepted sockets are then socket.socket objects:
    accept() makes them of the class that the module has under that name.
    """
    accept = getattr(sock, "accept", None)
    if (
        type(accept) is not types.MethodType
        or socket.socket is not _core_helpers.socket_type
        or not isinstance(socket.socket, type)
    ):
        return False
    real = accept.__self__
    return (
        isinstance(real, socket.socket)
        and is_defined_in(socket, accept.__func__)
        and inherits(real, "_accept", "gettimeout", "fileno")
        and _core.is_plain_class(_core_helpers.socket_type)
        and real.fileno() == sock.fileno()
    )


def inherits(sock: Any, *calls: str) -> bool:
    """Whether a socket has these calls unchanged.

    Only then may the core replace the calls by system calls.  An object of a
    subclass may have a call of its own in its __dict__.
    """
    own = getattr(sock, "__dict__", {})
    return all(
        call not in own
        and getattr(type(sock), call, None) is getattr(socket.SocketType, call)
        for call in calls
    )
