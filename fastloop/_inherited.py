"""Docstrings for the methods that ``Loop`` inherits from asyncio unchanged.

asyncio's own docstrings do not state units and errors, or do not exist.
``document`` gives a class copies of the functions, which run the same code and
have the docstrings below.  asyncio's functions stay unchanged.  If a program
patches one of them later, the loop uses the patch.
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
    only a handler's KeyboardInterrupt or SystemExit; any other exception of
    the handler is logged.  asyncio's ``loop.call_exception_handler()``.
    """


def connect_accepted_socket() -> None:
    """Serve a connection that was accepted outside asyncio; a coroutine.

    ``sock`` is the connected socket; the transport owns it from then on.
    ``ssl`` is an SSLContext for TLS.  ``ssl_handshake_timeout`` (60 by
    default) and ``ssl_shutdown_timeout`` (30) are in seconds.  Returns
    (transport, protocol).  Raises ValueError for a socket that is not a
    stream socket and for a timeout without ``ssl``, ssl.SSLError for a failed
    handshake, ConnectionAbortedError for one that takes too long.  asyncio's
    ``loop.connect_accepted_socket()``.
    """


def connect_read_pipe() -> None:
    """Read from a pipe with a protocol; a coroutine.

    ``pipe`` is a file object of a pipe, a socket or a character device.  It is
    made non-blocking and closed with the transport.  Returns (ReadTransport,
    protocol).  Raises ValueError for any other kind of file.  asyncio's
    ``loop.connect_read_pipe()``.
    """


def connect_write_pipe() -> None:
    """Write to a pipe with a transport; a coroutine.

    ``pipe`` is a file object of a pipe, a socket or a character device.  It is
    made non-blocking and closed with the transport.  Returns (WriteTransport,
    protocol).  Raises ValueError for any other kind of file.  asyncio's
    ``loop.connect_write_pipe()``.
    """


def create_connection() -> None:
    """Connect to a TCP server; a coroutine.

    Connects to ``host`` and ``port``, or uses ``sock``, which must be
    connected already.  ``ssl`` is True or an SSLContext for TLS.
    ``ssl_handshake_timeout`` (60 by default), ``ssl_shutdown_timeout`` (30)
    and ``happy_eyeballs_delay`` are in seconds.  The last is the wait for a
    slow address before the next one is tried in parallel; None, the default,
    tries the addresses one after the other.  Returns (transport, protocol).
    Raises OSError if no address accepts, socket.gaierror if the name does not
    resolve, ValueError for arguments that exclude each other, ssl.SSLError
    for a failed handshake, ConnectionAbortedError for one that takes too
    long; with ``all_errors`` (from 3.12 on) an ExceptionGroup of each
    address's error.  asyncio's ``loop.create_connection()``.
    """


def create_server() -> None:
    """Serve TCP; a coroutine that returns an asyncio.Server.

    Listens on ``host`` (a name, an address or several of them; None or "" for
    all interfaces) and ``port`` (0 for a free one), or on ``sock``, which is
    bound already.  ``backlog`` (100) is how many connections may wait to be
    accepted.  ``reuse_port`` lets several processes listen on one port.
    ``ssl`` is an SSLContext for TLS.  ``ssl_handshake_timeout`` (60 by
    default) and ``ssl_shutdown_timeout`` (30) are in seconds.  Raises OSError
    if an address cannot be bound, socket.gaierror if a name does not resolve,
    ValueError for arguments that exclude each other and for a socket that is
    not a stream socket, TypeError if ``ssl`` is True or False.  asyncio's
    ``loop.create_server()``.
    """


def create_unix_connection() -> None:
    """Connect to a server on a Unix socket; a coroutine.

    ``path`` is str, bytes or a Path; or ``sock`` is a socket that is connected
    already.  ``ssl`` is True (which needs ``server_hostname``) or an
    SSLContext for TLS.  ``ssl_handshake_timeout`` (60 by default) and
    ``ssl_shutdown_timeout`` (30) are in seconds.  Returns (transport,
    protocol).  Raises OSError if no server listens there, ValueError for
    arguments that exclude each other, ssl.SSLError for a failed handshake,
    ConnectionAbortedError for one that takes too long.  asyncio's
    ``loop.create_unix_connection()``.
    """


def create_unix_server() -> None:
    """Serve on a Unix socket; a coroutine that returns an asyncio.Server.

    ``path`` is str, bytes or a Path; or ``sock`` is a socket that is bound
    already.  ``backlog`` (100) is how many connections may wait to be
    accepted.  ``ssl`` is an SSLContext for TLS.  ``ssl_handshake_timeout`` (60
    by default) and ``ssl_shutdown_timeout`` (30) are in seconds.  Raises
    OSError if the path cannot be bound, ValueError for arguments that exclude
    each other and for a socket that is not a Unix stream socket, TypeError if
    ``ssl`` is True or False.  asyncio's ``loop.create_unix_server()``.
    """


def default_exception_handler() -> None:
    """Log an error; used while no exception handler is set.

    ``context`` is as for ``call_exception_handler``.  It is logged to the
    logger "asyncio" with level ERROR.  Raises nothing of its own.  asyncio's
    ``loop.default_exception_handler()``.
    """


def get_exception_handler() -> None:
    """Return the exception handler; None if the default one is in use.

    Raises nothing.  asyncio's ``loop.get_exception_handler()``.
    """


def get_task_factory() -> None:
    """Return the task factory; None if the default one is in use.

    Raises nothing.  asyncio's ``loop.get_task_factory()``.
    """


def getnameinfo() -> None:
    """Look up an address's host name and service name; a coroutine.

    Calls ``socket.getnameinfo`` in a thread of the default executor and
    returns its (host, service).  Raises what that function raises, mostly
    socket.gaierror, and RuntimeError after the default executor's shutdown.
    asyncio's ``loop.getnameinfo()``.
    """


def sendfile() -> None:
    """Send a file over a transport; a coroutine.

    ``file`` is open in binary mode.  ``offset`` and ``count`` are in bytes;
    ``count`` None sends to the end of the file.  Returns the number of bytes
    sent.  The file's position is then after the last byte sent, also after an
    error.  Raises RuntimeError if the transport is closing or cannot send
    files, ValueError and TypeError for an unsuitable file, ``offset`` or
    ``count``, and asyncio.SendfileNotAvailableError if ``fallback`` is False
    and the system call is not available.  asyncio's ``loop.sendfile()``.
    """


def set_default_executor() -> None:
    """Set the executor that ``run_in_executor(None, ...)`` uses.

    The previous one is not shut down.  Raises TypeError for an object that is
    not a ThreadPoolExecutor.  asyncio's ``loop.set_default_executor()``.
    """


def set_exception_handler() -> None:
    """Set the handler called as handler(loop, context) for uncaught errors.

    None selects the default handler.  Raises TypeError for an object that is
    not callable.  asyncio's ``loop.set_exception_handler()``.
    """


def set_task_factory() -> None:
    """Set the factory that ``create_task`` calls: (loop, coro, **kwargs).

    It must return a future.  None selects asyncio.Task.  Raises TypeError for
    an object that is not callable.  asyncio's ``loop.set_task_factory()``.
    """


def shutdown_asyncgens() -> None:
    """Close the asynchronous generators that are not finished; a coroutine.

    Raises none of their exceptions: these go to the exception handler.  A
    generator that is first iterated later causes a ResourceWarning.  asyncio's
    ``loop.shutdown_asyncgens()``.
    """


def shutdown_default_executor() -> None:
    """Shut down the default executor and wait for its threads; a coroutine.

    From 3.12 on ``timeout`` is how many seconds to wait; None waits without
    limit.  A RuntimeWarning reports that the time was not enough.  Raises
    nothing.  ``run_in_executor(None, ...)`` raises RuntimeError from then on.
    asyncio's ``loop.shutdown_default_executor()``.
    """


def subprocess_exec() -> None:
    """Start a program; a coroutine.

    ``program`` and ``args`` are str, bytes or Paths.  ``stdin``, ``stdout``
    and ``stderr`` are as in subprocess.Popen; Popen's other arguments are
    passed on.  Returns (SubprocessTransport, protocol).  Raises what Popen
    raises (FileNotFoundError, PermissionError), and ValueError for an argument
    that selects text mode.  asyncio's ``loop.subprocess_exec()``.
    """


def subprocess_shell() -> None:
    """Start a command line with the shell; a coroutine.

    ``cmd`` is str or bytes.  ``stdin``, ``stdout`` and ``stderr`` are as in
    subprocess.Popen; Popen's other arguments are passed on.  Returns
    (SubprocessTransport, protocol).  Raises what Popen raises, and ValueError
    for a ``cmd`` of another type and for an argument that selects text mode.
    asyncio's ``loop.subprocess_shell()``.
    """


_TEXTS = {
    name: value.__doc__
    for name, value in list(globals().items())
    if isinstance(value, types.FunctionType)
}


class _Documented:
    """A descriptor: asyncio's method with a docstring from this module.

    asyncio's method is looked up at each use: a program may have replaced it.
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
    """Give the methods CLS inherits from asyncio their docstrings."""
    for name in _TEXTS:
        found = getattr(cls, name)
        # A program's replacement need not be a function: it keeps its own.
        if isinstance(found, types.FunctionType):
            setattr(cls, name, _Documented(cls, name, found))
