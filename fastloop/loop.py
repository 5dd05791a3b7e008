"""The event loop: the C core, completed by what runs once a program.

``_core.BaseLoop`` runs callbacks, timers, descriptors, streams, accepts and
the executor.  What is set-up (resolving and connecting, servers, TLS,
datagrams, subprocesses, exception reports) is asyncio's own, inherited, so
that every Python version's semantics hold; the methods below connect the two.
"""

from __future__ import annotations

import asyncio
import errno
import functools
import logging
import os
import signal
import socket
import sys
import warnings
import weakref
from asyncio import (
    base_events,
    constants,
    events,
    format_helpers,
    sslproto,
    unix_events,
)
from asyncio.trsock import TransportSocket

from . import _core, _streams
from ._selector import WatchedDescriptors
from .sockets import SocketCalls

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from contextvars import Context
    from types import FrameType
    from typing import Any, TypeVarTuple

    _Ts = TypeVarTuple("_Ts")

    class _AsyncioLoop(asyncio.SelectorEventLoop):
        """What typeshed leaves out of asyncio's loop."""

        def _check_closed(self) -> None: ...
        def _check_signal(self, sig: object) -> None: ...
        def _set_coroutine_origin_tracking(self, enabled: bool) -> None: ...
        def _stop_serving(self, sock: socket.socket) -> None: ...

        _accept_connection2: Any

else:
    _AsyncioLoop = asyncio.SelectorEventLoop


_logger = logging.getLogger("asyncio")


def _ignore_signal(number: int, frame: FrameType | None) -> None:
    """Take a signal that the loop learns of by the wakeup descriptor."""


class Loop(  # type: ignore[misc, unused-ignore]
    _core.BaseLoop, SocketCalls, _AsyncioLoop
):
    """An asyncio event loop whose hot paths are in C.

    A drop-in for asyncio's own loop: make it with
    ``fastloop.new_event_loop()`` and run it with ``asyncio.Runner`` or
    ``fastloop.run``.  It is used from the thread that runs it, except for
    ``call_soon_threadsafe``.
    """

    # What asyncio's own __init__ would set on each instance and few change.
    _coroutine_origin_tracking_enabled = False
    _coroutine_origin_tracking_saved_depth: int | None = None
    _asyncgens_shutdown_called = False
    _executor_shutdown_called = False
    _clock_resolution = 1e-9
    _old_agen_hooks: Any = None
    _timer_cancelled_count = 0
    _ssock: Any = None
    _csock: Any = None

    def __init__(self) -> None:
        """Make a loop; see ``fastloop.new_event_loop``."""
        _refuse_greenlets()
        self._signal_handlers = {}
        if asyncio.coroutines._is_debug_mode():  # type: ignore[attr-defined]
            self._debug = True

    def __repr__(self) -> str:
        return (
            f"<{self.__class__.__name__} running={self.is_running()} "
            f"closed={self.is_closed()} debug={self.get_debug()}>"
        )

    def __del__(self, _warn: Any = warnings.warn) -> None:
        # A loop that is still current when the interpreter has cleared its
        # modules: asyncio's, which is part of a cycle, is not even collected.
        if self.is_closed() or asyncio.__name__ is None:
            return
        _warn(f"unclosed event loop {self!r}", ResourceWarning, source=self)
        if not self.is_running():
            self.close()

    def __dir__(self) -> list[str]:
        # Debuggers and mocks read all that is named here: see _nest_patched.
        return [name for name in super().__dir__() if name != "_nest_patched"]

    # -- asyncio's instance attributes, made when somebody asks -------------

    @property
    def _internal_fds(self) -> int:
        return 0 if self.is_closed() else 1

    @property
    def _asyncgens(self) -> weakref.WeakSet[Any]:
        found: weakref.WeakSet[Any]
        found = self.__dict__.setdefault("asyncgens", weakref.WeakSet())
        return found

    if sys.version_info >= (3, 13):

        @property
        def _unix_server_sockets(self) -> dict[socket.socket, int]:
            found: dict[socket.socket, int]
            found = self.__dict__.setdefault("unix_server_sockets", {})
            return found

    @property
    def _transports(self) -> weakref.WeakValueDictionary[int, Any]:
        found: weakref.WeakValueDictionary[int, Any] | None
        found = self._python_transports
        if found is None:
            found = self._python_transports = weakref.WeakValueDictionary()
        found.update(self._open_transports())
        return found

    @property
    def _nest_patched(self) -> bool:
        """Refuse to be made reentrant, before anything of ours is replaced.

        nest_asyncio asks for this name first, then puts Python methods in the
        place of those of the loop's class, and they need asyncio's queues.
        """
        raise ValueError(f"Can't patch loop of type {type(self)}")

    @functools.cached_property
    def _selector(self) -> Any:
        """asyncio's selector, to look at: ``get_map()`` and ``get_key()``."""
        return WatchedDescriptors(self)

    @functools.cached_property
    def _watcher(self) -> Any:
        """What tells of the end of child processes (asyncio from 3.14 on)."""
        # typeshed does not know the names of 3.14.
        unix: Any = unix_events
        if unix.can_use_pidfd():
            return unix._PidfdChildWatcher()
        return unix._ThreadedChildWatcher()

    # -- closing --------------------------------------------------------------

    def close(self) -> None:
        """Close the loop; nothing happens when it is closed already.

        Callbacks and timers that wait are dropped unrun, signal handlers are
        restored, the default executor is told to stop and not waited for.
        Raises RuntimeError when the loop is running.  Implements asyncio's
        ``loop.close()``.
        """
        if self.is_closed():
            return
        if not self.is_running():
            self._remove_signal_handlers()
        if self._debug:
            _logger.debug("Close %r", self)
        self._close()
        self._selector = None
        self._executor_shutdown_called = True
        executor = self._default_executor
        if executor is not None:
            self._default_executor = None
            executor.shutdown(wait=False)

    # -- scheduling -----------------------------------------------------------

    def _call_soon(
        self,
        callback: Callable[..., object],
        args: tuple[Any, ...],
        context: Context | None,
    ) -> events.Handle:
        handle = events.Handle(callback, args, self, context)
        trace: Any = handle._source_traceback  # type: ignore[attr-defined]
        if trace:
            del trace[-1]
        self._add_callback(handle)
        return handle

    # -- debug ----------------------------------------------------------------

    def set_debug(self, enabled: bool) -> None:
        """Turn debug mode on or off.

        Callbacks queued before are checked as they were queued.  Implements
        asyncio's ``loop.set_debug()``.
        """
        self._debug = enabled
        if self.is_running():
            self.call_soon_threadsafe(
                self._set_coroutine_origin_tracking, enabled
            )

    def _report_callback(
        self,
        handle: _core.Handle | _core.TimerHandle | None,
        exc: BaseException,
    ) -> None:
        """Report what a callback raised, with asyncio's text and keys."""
        if handle is None:
            self.call_exception_handler(
                {"message": "Exception in the event loop", "exception": exc}
            )
            return
        source = format_helpers._format_callback_source(
            handle._callback, handle._args or (), **_debug_keyword(self)
        )
        context: dict[str, Any] = {
            "message": f"Exception in callback {source}",
            "exception": exc,
            "handle": handle,
        }
        if handle._source_traceback:
            context["source_traceback"] = handle._source_traceback
        self.call_exception_handler(context)

    def _report_slow(self, subject: object, seconds: float) -> None:
        """Log a callback that took longer than slow_callback_duration."""
        if isinstance(subject, events.Handle):
            subject = base_events._format_handle(subject)  # type: ignore[attr-defined]
        _logger.warning("Executing %s took %.3f seconds", subject, seconds)

    # -- signals --------------------------------------------------------------

    def add_signal_handler(
        self, sig: int, callback: Callable[[*_Ts], Any], *args: *_Ts
    ) -> None:
        """Call ``callback(*args)`` in the loop when a signal arrives.

        Replaces an earlier handler of the signal.  Raises TypeError for a
        coroutine function or what is no signal number, ValueError for a
        number out of range, RuntimeError for a signal that cannot be caught,
        outside the main thread or when the loop is closed.  Implements
        asyncio's ``loop.add_signal_handler()``.
        """
        if asyncio.iscoroutine(callback) or _is_coroutine_function(callback):
            raise TypeError(
                "coroutines cannot be used with add_signal_handler()"
            )
        self._check_signal(sig)
        self._check_closed()
        self._signal_wakeup(True)
        self._signal_handlers[sig] = events.Handle(callback, args, self, None)
        try:
            signal.signal(sig, _ignore_signal)
            # A system call that the signal interrupts is made again.
            signal.siginterrupt(sig, False)
        except OSError as exc:
            del self._signal_handlers[sig]
            if not self._signal_handlers:
                self._signal_wakeup(False)
            if exc.errno == errno.EINVAL:
                raise RuntimeError(f"sig {sig} cannot be caught") from None
            raise

    def remove_signal_handler(self, sig: int) -> bool:
        """Forget a signal's handler and restore the default.

        Returns True if there was one.  Raises as ``add_signal_handler``.
        Implements asyncio's ``loop.remove_signal_handler()``.
        """
        self._check_signal(sig)
        if sig not in self._signal_handlers:
            return False
        del self._signal_handlers[sig]
        default = (
            signal.default_int_handler
            if sig == signal.SIGINT
            else signal.SIG_DFL
        )
        try:
            signal.signal(sig, default)
        except OSError as exc:
            if exc.errno == errno.EINVAL:
                raise RuntimeError(f"sig {sig} cannot be caught") from None
            raise
        if not self._signal_handlers:
            self._signal_wakeup(False)
        return True

    def _remove_signal_handlers(self) -> None:
        if not self._signal_handlers:
            return
        if sys.is_finalizing():
            warnings.warn(
                f"Closing the loop {self!r} on interpreter shutdown stage, "
                "skipping signal handlers removal",
                ResourceWarning,
                stacklevel=3,
                source=self,
            )
            self._signal_handlers.clear()
            return
        for sig in list(self._signal_handlers):
            self.remove_signal_handler(sig)

    # -- descriptors ----------------------------------------------------------

    def _check_python_transports(self, fd: Any) -> None:
        """Raise RuntimeError if one of asyncio's own transports uses fd."""
        number = fd if isinstance(fd, int) else fd.fileno()
        transport = self._python_transports.get(number)
        if transport is not None and not transport.is_closing():
            raise RuntimeError(
                f"File descriptor {fd!r} is used by transport {transport!r}"
            )

    def _ensure_fd_no_transport(self, fd: Any) -> None:
        _core.check_no_transport(self, fd)

    # -- streams --------------------------------------------------------------

    @functools.cached_property
    def _private_socks(self) -> weakref.WeakSet[socket.socket]:
        """Socket objects made here or by asyncio, which no program has."""
        return weakref.WeakSet()

    async def _connect_sock(self, *args: Any, **kwargs: Any) -> socket.socket:
        sock = await super()._connect_sock(*args, **kwargs)
        self._private_socks.add(sock)
        return sock

    def _make_socket_transport(
        self,
        sock: socket.socket,
        protocol: asyncio.BaseProtocol,
        waiter: asyncio.Future[None] | None = None,
        *,
        extra: dict[str, Any] | None = None,
        server: Any = None,
        context: Any = None,
    ) -> Any:
        _check_protocol(protocol)
        self._ensure_fd_no_transport(sock)
        return self._open_stream(
            sock, protocol, waiter, extra, server, context
        )

    def _open_stream(
        self,
        sock: socket.socket,
        protocol: asyncio.BaseProtocol,
        waiter: asyncio.Future[None] | None,
        extra: dict[str, Any] | None,
        server: Any,
        context: Any,
    ) -> Any:
        """A C stream; for a socket whose class has calls of its own, asyncio's
        transport, which makes them.
        """
        if _leaves_to_system(sock, "recv", "recv_into", "send", "sendmsg"):
            shared = sock not in self._private_socks
            return _core.open_stream(
                self, sock, shared, protocol, waiter, extra, server, context
            )
        more = {} if sys.version_info < (3, 15) else {"context": context}
        return super()._make_socket_transport(  # type: ignore[misc]
            sock, protocol, waiter, extra=extra, server=server, **more
        )

    def _make_ssl_transport(
        self,
        rawsock: socket.socket,
        protocol: asyncio.BaseProtocol,
        sslcontext: Any,
        waiter: Any = None,
        *,
        server_side: bool = False,
        server_hostname: str | None = None,
        extra: dict[str, Any] | None = None,
        server: Any = None,
        ssl_handshake_timeout: Any = None,
        ssl_shutdown_timeout: Any = None,
        call_connection_made: bool = True,
        context: Any = None,
    ) -> Any:
        self._ensure_fd_no_transport(rawsock)
        tls = sslproto.SSLProtocol(
            self,
            protocol,
            sslcontext,
            waiter,
            server_side,
            server_hostname,
            call_connection_made,
            ssl_handshake_timeout=ssl_handshake_timeout,
            ssl_shutdown_timeout=ssl_shutdown_timeout,
        )
        self._open_stream(rawsock, tls, None, extra, server, context)
        return tls._app_transport

    async def _sendfile_native(
        self, transp: Any, file: Any, offset: int, count: int | None
    ) -> int:
        """Send a file by the system's own call, as the transport's only
        writer.
        """
        if not isinstance(transp, _core.StreamTransport):
            return await super()._sendfile_native(transp, file, offset, count)
        resume_reading = transp.is_reading()
        transp.pause_reading()
        await transp._make_empty_waiter()
        try:
            sock = transp._sock
            self._check_sendfile_params(sock, file, offset, count)
            return await _send_file(transp, sock, file, offset, count)
        finally:
            transp._reset_empty_waiter()
            if resume_reading:
                transp.resume_reading()

    # -- subprocesses ---------------------------------------------------------

    async def _make_subprocess_transport(
        self, *args: Any, **kwargs: Any
    ) -> Any:
        _core._send_held()  # the process may wait for it
        return await super()._make_subprocess_transport(*args, **kwargs)

    # -- datagrams ------------------------------------------------------------

    @functools.cached_property
    def _given_socks(self) -> weakref.WeakSet[socket.socket]:
        """Datagram socket objects that a program gave."""
        return weakref.WeakSet()

    async def create_datagram_endpoint(
        self,
        protocol_factory: Any,
        local_addr: Any = None,
        remote_addr: Any = None,
        *,
        family: int = 0,
        proto: int = 0,
        flags: int = 0,
        reuse_port: bool | None = None,
        allow_broadcast: bool | None = None,
        sock: socket.socket | None = None,
    ) -> tuple[Any, Any]:
        """Create a datagram transport and its protocol.

        Implements asyncio's ``loop.create_datagram_endpoint()``.  The loop
        notes that a program may keep ``sock``.
        """
        if sock is not None:
            self._given_socks.add(sock)
        return await super().create_datagram_endpoint(
            protocol_factory,
            local_addr,
            remote_addr,
            family=family,
            proto=proto,
            flags=flags,
            reuse_port=reuse_port,
            allow_broadcast=allow_broadcast,
            sock=sock,
        )

    def _make_datagram_transport(
        self,
        sock: socket.socket,
        protocol: asyncio.DatagramProtocol,
        address: Any = None,
        waiter: asyncio.Future[None] | None = None,
        extra: dict[str, Any] | None = None,
    ) -> Any:
        if sock.family not in _DATAGRAM_FAMILIES or not _leaves_to_system(
            sock, "recvfrom", "send", "sendto"
        ):
            return super()._make_datagram_transport(  # type: ignore[misc]
                sock, protocol, address, waiter, extra
            )
        _check_protocol(protocol)
        self._ensure_fd_no_transport(sock)
        known = dict(extra or {})
        shared = sock in self._given_socks
        transport = _core.open_datagram(
            self, sock, shared, protocol, address or None, waiter, known
        )
        known["socket"] = _streams.TransportSocket(sock, transport)
        return transport

    # -- servers --------------------------------------------------------------

    def _start_serving(
        self,
        protocol_factory: Any,
        sock: socket.socket,
        sslcontext: Any = None,
        server: Any = None,
        backlog: int = 100,
        ssl_handshake_timeout: float = constants.SSL_HANDSHAKE_TIMEOUT,
        ssl_shutdown_timeout: float = constants.SSL_SHUTDOWN_TIMEOUT,
        context: Any = None,
    ) -> None:
        if not _leaves_to_system(sock, "accept"):
            more = () if sys.version_info < (3, 15) else (context,)
            super()._start_serving(  # type: ignore[misc]
                protocol_factory,
                sock,
                sslcontext,
                server,
                backlog,
                ssl_handshake_timeout,
                ssl_shutdown_timeout,
                *more,
            )
            return
        accept_tls = None
        if sslcontext is not None:

            def accept_tls(conn: socket.socket, peer: Any) -> None:
                self._accept_tls(
                    conn,
                    peer,
                    protocol_factory,
                    sslcontext,
                    server,
                    ssl_handshake_timeout,
                    ssl_shutdown_timeout,
                )

        _core.start_accepting(
            self, sock, protocol_factory, server, backlog, accept_tls, context
        )

    def _accept_tls(
        self,
        conn: socket.socket,
        peer: Any,
        protocol_factory: Any,
        sslcontext: Any,
        server: Any,
        handshake_timeout: float,
        shutdown_timeout: float,
    ) -> None:
        """Begin a TLS connection on an accepted socket, as asyncio does."""
        self._private_socks.add(conn)
        self.create_task(
            self._accept_connection2(
                protocol_factory,
                conn,
                {"peername": peer},
                sslcontext,
                server,
                handshake_timeout,
                shutdown_timeout,
            )
        )

    def _accept_exhausted(
        self, sock: socket.socket, exc: OSError, listener: Any
    ) -> None:
        """Report that accept found no descriptor or memory; rest a while."""
        self.call_later(
            constants.ACCEPT_RETRY_DELAY, _resume_accepting, sock, listener
        )
        self.call_exception_handler(
            {
                "message": "socket.accept() out of system resource",
                "exception": exc,
                "socket": TransportSocket(sock),
            }
        )

    def _accept_failed(self, exc: BaseException) -> None:
        """Report a connection that could not be opened."""
        self.call_exception_handler(
            {
                "message": "Error on transport creation for incoming "
                "connection",
                "exception": exc,
            }
        )

    # -- names ----------------------------------------------------------------

    async def getaddrinfo(
        self,
        host: Any,
        port: Any,
        *,
        family: int = 0,
        type: int = 0,
        proto: int = 0,
        flags: int = 0,
    ) -> Any:
        """Resolve a name as ``socket.getaddrinfo`` does, off the loop.

        Returns its list of 5-tuples, raises what it raises.  A numeric
        address and port are answered at once, without a thread.  Implements
        asyncio's ``loop.getaddrinfo()``.
        """
        if not self._debug and _may_be_literal(host):
            numeric = socket.AI_NUMERICHOST | socket.AI_NUMERICSERV
            try:
                return socket.getaddrinfo(
                    host, port, family, type, proto, flags | numeric
                )
            except OSError:
                pass  # no literal, or the resolver says better what is wrong
        return await super().getaddrinfo(
            host, port, family=family, type=type, proto=proto, flags=flags
        )


# asyncio's own test; its public name is deprecated from 3.14 on.
_is_coroutine_function = (
    getattr(asyncio.coroutines, "_iscoroutinefunction", None)
    or asyncio.iscoroutinefunction
)


#: Those whose addresses the C code can read and write.
_DATAGRAM_FAMILIES = {socket.AF_INET, socket.AF_INET6, socket.AF_UNIX}


def _check_protocol(protocol: asyncio.BaseProtocol) -> None:
    """AttributeError for what a factory should not have made."""
    protocol.connection_made  # noqa: B018


async def _send_file(
    transp: Any, sock: Any, file: Any, offset: int, count: int | None
) -> int:
    """Send part of a file on a transport whose buffer is empty.

    asyncio's ``_sock_sendfile_native``, but it waits by the transport's own
    watch, so that it needs no descriptor of its own, and it ends with
    ConnectionError when the transport does.
    """
    try:
        source = file.fileno()
        block = count or os.fstat(source).st_size
    except (AttributeError, OSError):
        raise asyncio.SendfileNotAvailableError("not a regular file") from None
    if not block:
        return 0
    total = 0
    try:
        while total < (count or sys.maxsize):
            size = min(count - total if count else block, _MOST_SENDFILE_BYTES)
            try:
                sent = os.sendfile(sock.fileno(), source, offset, size)
            except (BlockingIOError, InterruptedError):
                pass
            except OSError as exc:
                if not total:
                    raise asyncio.SendfileNotAvailableError(
                        "os.sendfile call failed"
                    ) from exc
                raise
            else:
                if not sent:
                    break
                offset += sent
                total += sent
            await transp._make_room_waiter()
            if transp.is_closing():
                raise ConnectionError("Connection is closed by peer")
    finally:
        if total or sys.version_info >= (3, 14):
            os.lseek(source, offset, os.SEEK_SET)
    return total


#: A 32-bit system refuses more.
_MOST_SENDFILE_BYTES = sys.maxsize // 2 + 1


def _resume_accepting(sock: socket.socket, listener: Any) -> None:
    """Accept again, unless the server has closed its socket meanwhile."""
    if sock.fileno() >= 0:
        _core.resume_accepting(listener)


def _leaves_to_system(sock: socket.socket, *calls: str) -> bool:
    """Whether a socket's class has these calls as socket.socket has them."""
    kind = type(sock)
    return kind is socket.socket or all(
        getattr(kind, call, None) is getattr(socket.socket, call)
        for call in calls
    )


def _refuse_greenlets() -> None:
    """RuntimeError where gevent has made threads into greenlets.

    They share one thread, and a loop that waits in C would stop them all.
    """
    monkey = sys.modules.get("gevent.monkey")
    if monkey is not None and (
        monkey.is_module_patched("threading")
        or monkey.is_module_patched("select")
    ):
        raise RuntimeError(
            "fastloop does not work with gevent's monkey.patch_all(): use "
            "asyncio's own loop, or do not patch 'thread' and 'select'"
        )


_system_getaddrinfo = socket.getaddrinfo


def _may_be_literal(host: object) -> bool:
    """Whether a host is worth asking for without a resolver, or a thread."""
    return (
        isinstance(host, str)
        and (":" in host or host[-1:].isdigit())
        and socket.getaddrinfo is _system_getaddrinfo
    )


def _debug_keyword(loop: Loop) -> dict[str, bool]:
    # Late 3.12 releases began to show a callback's arguments only in debug
    # mode.
    if format_helpers._format_callback_source.__kwdefaults__:
        return {"debug": loop.get_debug()}
    return {}


# What was written is sent before a fork, lest the child send it as well.
os.register_at_fork(
    before=_core._send_held, after_in_child=_core._signals_forked
)
