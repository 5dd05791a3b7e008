"""Docstrings for the methods that ``Loop`` has from asyncio as they are.

asyncio's own say nothing of units and errors, or are not there.  ``document``
has a class show copies of the functions, which run the same code and have
these texts; asyncio's stay as they are, and a patch of asyncio's is heard.
"""

from __future__ import annotations

import types
from typing import Any

__all__ = ["document"]


def call_exception_handler() -> None:
    """Report an error to the loop's exception handler.

    ``context`` is a dict with ``message`` and, where they apply,
    ``exception``, ``future``, ``task``, ``handle``, ``protocol``,
    ``transport``, ``socket``, ``asyncgen`` and ``source_traceback``.  Raises
    only KeyboardInterrupt and SystemExit of a handler; what else it raises is
    logged.  asyncio's ``loop.call_exception_handler()``.
    """


def connect_accepted_socket() -> None:
    """Serve a connection that was accepted elsewhere; a coroutine.

    ``sock`` is the connected socket, which the transport owns from then on;
    ``ssl`` an SSLContext for TLS.  ``ssl_handshake_timeout`` (60 by default)
    and ``ssl_shutdown_timeout`` (30) are in seconds.  Returns (transport,
    protocol).  Raises ValueError for a socket that is no stream or a timeout
    without ``ssl``, ssl.SSLError and ConnectionAbortedError for a handshake
    that fails or takes too long.  asyncio's
    ``loop.connect_accepted_socket()``.
    """


def connect_read_pipe() -> None:
    """Read a pipe by a protocol; a coroutine.

    ``pipe`` is a file object of a pipe, a socket or a character device; it is
    made non-blocking and closed with the transport.  Returns (ReadTransport,
    protocol).  Raises ValueError for any other kind of file.  asyncio's
    ``loop.connect_read_pipe()``.
    """


def connect_write_pipe() -> None:
    """Write to a pipe by a transport; a coroutine.

    ``pipe`` is a file object of a pipe, a socket or a character device; it is
    made non-blocking and closed with the transport.  Returns (WriteTransport,
    protocol).  Raises ValueError for any other kind of file.  asyncio's
    ``loop.connect_write_pipe()``.
    """


def create_connection() -> None:
    """Connect to a TCP server; a coroutine.

    To ``host`` and ``port``, or over ``sock``, which is connected already;
    ``ssl`` is True or an SSLContext for TLS.  ``ssl_handshake_timeout`` (60
    by default), ``ssl_shutdown_timeout`` (30) and ``happy_eyeballs_delay``
    (the wait before the next address is tried beside one that is slow; None,
    the default, tries one after the other) are in seconds.  Returns
    (transport, protocol).  Raises OSError when no address answers,
    socket.gaierror when there is none, ValueError for arguments that exclude
    each other, ssl.SSLError and ConnectionAbortedError for a handshake that
    fails or takes too long; with ``all_errors`` (from 3.12 on) an
    ExceptionGroup of each address's error.  asyncio's
    ``loop.create_connection()``.
    """


def create_server() -> None:
    """Serve TCP; a coroutine that returns an asyncio.Server.

    On ``host`` (a name, an address, several of them; None or "" for all
    interfaces) and ``port`` (0 for a free one), or on ``sock``, which is
    bound already.  ``backlog`` (100) is how many connections may wait to be
    accepted, ``reuse_port`` lets several processes listen on one port,
    ``ssl`` is an SSLContext for TLS, ``ssl_handshake_timeout`` (60 by
    default) and ``ssl_shutdown_timeout`` (30) are in seconds.  Raises OSError
    when an address cannot be bound, socket.gaierror for a name without one,
    ValueError for arguments that exclude each other or a socket that is no
    stream, TypeError for an ``ssl`` that is True or False.  asyncio's
    ``loop.create_server()``.
    """


def create_unix_connection() -> None:
    """Connect to a server on a Unix socket; a coroutine.

    ``path`` is str, bytes or a Path, or ``sock`` a socket that is connected
    already; ``ssl`` is True (which needs ``server_hostname``) or an
    SSLContext for TLS.  ``ssl_handshake_timeout`` (60 by default) and
    ``ssl_shutdown_timeout`` (30) are in seconds.  Returns (transport,
    protocol).  Raises OSError when nobody listens, ValueError for arguments
    that exclude each other, ssl.SSLError and ConnectionAbortedError for a
    handshake that fails or takes too long.  asyncio's
    ``loop.create_unix_connection()``.
    """


def create_unix_server() -> None:
    """Serve on a Unix socket; a coroutine that returns an asyncio.Server.

    ``path`` is str, bytes or a Path, or ``sock`` a socket that is bound
    already.  ``backlog`` (100) is how many connections may wait to be
    accepted, ``ssl`` an SSLContext for TLS, ``ssl_handshake_timeout`` (60 by
    default) and ``ssl_shutdown_timeout`` (30) are in seconds.  Raises OSError
    when the path cannot be bound, ValueError for arguments that exclude each
    other or a socket that is no Unix stream, TypeError for an ``ssl`` that is
    True or False.  asyncio's ``loop.create_unix_server()``.
    """


def default_exception_handler() -> None:
    """Log an error, as happens where no exception handler is set.

    ``context`` is ``call_exception_handler``'s; it goes to the logger
    "asyncio" with the level ERROR.  Raises nothing of its own.  asyncio's
    ``loop.default_exception_handler()``.
    """


def get_exception_handler() -> None:
    """Return the exception handler; None where the default one is in use.

    Raises nothing.  asyncio's ``loop.get_exception_handler()``.
    """


def get_task_factory() -> None:
    """Return the task factory; None where the default one is in use.

    Raises nothing.  asyncio's ``loop.get_task_factory()``.
    """


def getnameinfo() -> None:
    """Find an address's name and service; a coroutine.

    Calls ``socket.getnameinfo`` in a thread of the default executor and
    returns its (host, service).  Raises what that raises, socket.gaierror
    above all, and RuntimeError once the default executor was shut down.
    asyncio's ``loop.getnameinfo()``.
    """


def sendfile() -> None:
    """Send a file over a transport; a coroutine.

    ``file`` is open in binary mode, ``offset`` and ``count`` are in bytes,
    None for all there is.  Returns how many bytes were sent; the file's
    position is then behind them, also after an error.  Raises RuntimeError
    when the transport is closing or cannot send files, ValueError and
    TypeError for a file or numbers that do not fit, and, where ``fallback``
    is False and the system has no call for it,
    asyncio.SendfileNotAvailableError.  asyncio's ``loop.sendfile()``.
    """


def set_default_executor() -> None:
    """Set the executor that ``run_in_executor(None, ...)`` uses.

    The former one is not shut down.  Raises TypeError for what is no
    ThreadPoolExecutor.  asyncio's ``loop.set_default_executor()``.
    """


def set_exception_handler() -> None:
    """Set what is called with (loop, context) for an error nobody took.

    None is the default handler.  Raises TypeError for what is not callable.
    asyncio's ``loop.set_exception_handler()``.
    """


def set_task_factory() -> None:
    """Set what ``create_task`` calls with (loop, coro, **kwargs).

    It returns a future; None is asyncio.Task.  Raises TypeError for what is
    not callable.  asyncio's ``loop.set_task_factory()``.
    """


def shutdown_asyncgens() -> None:
    """Close the asynchronous generators that are not finished; a coroutine.

    Raises nothing of theirs: the exception handler is told.  A generator that
    begins later makes a ResourceWarning.  asyncio's
    ``loop.shutdown_asyncgens()``.
    """


def shutdown_default_executor() -> None:
    """End the default executor and wait for its threads; a coroutine.

    From 3.12 on ``timeout`` says how many seconds to wait, None for as long
    as it takes; a RuntimeWarning tells that it was not enough.  Raises
    nothing; ``run_in_executor(None, ...)`` raises RuntimeError from then on.
    asyncio's ``loop.shutdown_default_executor()``.
    """


def subprocess_exec() -> None:
    """Start a program; a coroutine.

    ``program`` and ``args`` are str, bytes or Paths; ``stdin``, ``stdout``
    and ``stderr`` as in subprocess.Popen, whose other arguments are passed
    on.  Returns (SubprocessTransport, protocol).  Raises what Popen raises
    (FileNotFoundError, PermissionError), ValueError for an argument that
    would make text of the bytes.  asyncio's ``loop.subprocess_exec()``.
    """


def subprocess_shell() -> None:
    """Start a command line by the shell; a coroutine.

    ``cmd`` is str or bytes; ``stdin``, ``stdout`` and ``stderr`` as in
    subprocess.Popen, whose other arguments are passed on.  Returns
    (SubprocessTransport, protocol).  Raises what Popen raises, ValueError for
    a ``cmd`` of another type and for an argument that would make text of the
    bytes.  asyncio's ``loop.subprocess_shell()``.
    """


_TEXTS = {
    name: value.__doc__
    for name, value in list(globals().items())
    if isinstance(value, types.FunctionType)
}


class _Documented:
    """A method of asyncio's with a text of ours.

    asyncio's is looked up at each use: a program may have replaced it.
    """

    def __init__(
        self, owner: type, name: str, theirs: types.FunctionType
    ) -> None:
        self._owner = owner
        self._name = name
        self._theirs = theirs
        self.__doc__ = _TEXTS[name]
        ours = types.FunctionType(
            theirs.__code__,
            theirs.__globals__,
            name,
            theirs.__defaults__,
            theirs.__closure__,
        )
        ours.__kwdefaults__ = theirs.__kwdefaults__
        ours.__annotations__ = theirs.__annotations__
        ours.__dict__.update(theirs.__dict__)
        ours.__qualname__ = f"{owner.__qualname__}.{name}"
        ours.__module__ = owner.__module__
        ours.__doc__ = self.__doc__
        self._ours = ours

    def __get__(self, loop: Any, cls: type) -> Any:
        if getattr(super(self._owner, cls), self._name) is self._theirs:
            return self._ours.__get__(loop, cls)
        return getattr(
            super(self._owner, cls if loop is None else loop), self._name
        )


def document(cls: type) -> None:
    """Give what CLS inherits from asyncio a text from here."""
    for name in _TEXTS:
        found = getattr(cls, name)
        # What a program put in its place speaks for itself.
        if isinstance(found, types.FunctionType):
            setattr(cls, name, _Documented(cls, name, found))
