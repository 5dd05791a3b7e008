"""Python functions that the C core calls where speed does not matter.

None runs for each callback or packet.
"""

from __future__ import annotations

import asyncio
import errno
import functools
import logging
import socket
import types
import weakref
from asyncio import trsock

from ._private import check_ssl_socket, has_c_futures

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

_logger = logging.getLogger("asyncio")


#: The class whose methods the C code may replace by system calls.  Kept here
#: because a test may replace the name socket.socket.
socket_type = socket.socket


# For a member of an enum socket.socket runs three functions in Python.
_families = {family.value: family for family in socket.AddressFamily}
_number_of_family: Callable[[Any], int] = socket.SocketType.family.__get__
number_of_type: Callable[[Any], int] = socket.SocketType.type.__get__


def family_of(sock: Any) -> Any:
    """Return sock.family."""
    if type(sock) is not socket_type:
        return sock.family
    number = _number_of_family(sock)
    return _families.get(number, number)


def safepoint() -> None:
    """Do nothing, so that CPython runs signal handlers and other threads."""


def complete_future(record: Callable[..., Any]) -> None:
    """Complete a future of asyncio's in C, whose loop's call_soon() is given.

    Makes no call if asyncio.Future is another class.
    """
    if has_c_futures():
        loop: Any = types.SimpleNamespace(call_soon=record, get_debug=bool)
        future: asyncio.Future[None] = asyncio.Future(loop=loop)
        future.add_done_callback(asyncio.Future.result)
        future.set_result(None)


class TransportSocket(trsock.TransportSocket):
    """The socket object that a transport's ``get_extra_info()`` returns.

    A program that takes the descriptor from it may send or shut down without
    the transport's knowledge.  So the transport sends at once from then on,
    without corking.  Queries and options do not have this effect.
    """

    def __init__(self, sock: socket.socket, transport: Any) -> None:
        self._socket = sock
        # Weak: the transport refers to this object, and a cycle would need
        # the garbage collector.
        self._transport = weakref.ref(transport)

    @functools.cached_property
    def _sock(self) -> socket.socket:  # for fileno(), dup() and shutdown()
        transport = self._transport()
        if transport is not None:
            _ = transport._sock_fd  # makes the transport stop corking
        return self._socket

    # Kept: an HTTP client may read them 50 times a request.
    family: Any = functools.cached_property(lambda s: family_of(s._socket))
    type: Any = functools.cached_property(lambda s: s._socket.type)
    # Read at each access, so that a patched method of socket.socket is seen.
    # operator.attrgetter() would recurse without a limit in an object whose
    # socket is itself.
    proto: Any = property(lambda s: s._socket.proto)
    getpeername: Any = property(lambda s: s._socket.getpeername)
    getsockname: Any = property(lambda s: s._socket.getsockname)
    getsockopt: Any = property(lambda s: s._socket.getsockopt)
    setsockopt: Any = property(lambda s: s._socket.setsockopt)
    get_inheritable: Any = property(lambda s: s._socket.get_inheritable)

    def __repr__(self) -> str:
        return repr(trsock.TransportSocket(self._socket))


def own_socket(fd: int) -> socket.socket:
    """Return a non-blocking socket object, which owns the fd.

    If this raises, the fd stays the caller's.  A signal handler may raise as
    soon as the object has the fd, so the object exists before that.
    """
    sock = socket_type.__new__(socket_type)
    begin: Any = sock.__init__  # type: ignore[misc]
    try:
        try:
            begin(fileno=fd)
        except OSError as exc:
            if exc.errno != errno.ENOPROTOOPT:
                raise
            begin(proto=0, fileno=fd)  # WSL 1 cannot be asked
        sock.setblocking(False)
    except BaseException:
        sock.detach()
        raise
    return sock


def closed_socket(family: int) -> trsock.TransportSocket:
    """Return a closed socket, for a closed transport that never made one."""
    sock = socket_type(family)
    sock.close()
    return trsock.TransportSocket(sock)


def warn_lost() -> None:
    """Log asyncio's warning about writing to a connection that is lost."""
    _logger.warning("socket.send() raised exception.")


# -- sock_* -------------------------------------------------------------------


def check_socket(sock: Any, debug: bool) -> None:
    """Raise what asyncio's ``sock_*()`` methods raise for a wrong socket."""
    check_ssl_socket(sock)
    if debug and sock.gettimeout() != 0:
        raise ValueError("the socket must be non-blocking")


def finish_connect(sock: Any, address: Any, code: int | None = None) -> None:
    """Raise the error of a connection that has succeeded or failed.

    ``code`` is the socket's SO_ERROR, if C has read it, which clears it.
    """
    if code is None:
        code = sock.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)
    if code != 0:
        raise OSError(code, f"Connect call failed {address}")


def send_rest(sock: Any, data: Any, sent_bytes: int) -> Any:
    """Send the rest of ``sock_sendall()``'s data; return send()'s count."""
    if not sent_bytes and isinstance(data, (bytes, bytearray)):
        return sock.send(data)  # a class of the program's may want bytes
    view = memoryview(data)
    try:
        if view.nbytes and (view.ndim != 1 or view.itemsize > 1):
            view = view.cast("B")  # send() counts bytes
        return sock.send(view[sent_bytes:])
    finally:
        del view  # else an exception's traceback would keep the buffer
