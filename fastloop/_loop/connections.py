"""Connections: connects asyncio's set-up code with the core's transports.

asyncio's own methods resolve names, connect and make sockets.  The methods
below pass the socket to the core's transports and listeners.  asyncio's own
transports serve pipes, a socket whose class is the program's and has its own
calls, and a datagram socket whose family is not of ``_DATAGRAM_FAMILIES``.
"""

from __future__ import annotations

import asyncio
import errno
import functools
import os
import socket
import sys
from asyncio import constants, sslproto
from asyncio.trsock import TransportSocket

from .. import _core
from . import _core_helpers, _originals, _private
from .sockets import SocketCalls

try:
    import ssl
except ImportError:
    ssl = None  # type: ignore[assignment]

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any, TypeVar

    _Method = TypeVar("_Method", bound=Callable[..., Any])

_Loop = asyncio.SelectorEventLoop
_SCTP = getattr(socket, "IPPROTO_SCTP", 132)

#: The address families whose addresses the C code can read and write.
_DATAGRAM_FAMILIES = {socket.AF_INET, socket.AF_INET6, socket.AF_UNIX}

#: The socket objects, by their id(), that a program gave to calls which have
#: not returned yet: it may use them itself.
_given_socks: set[int] = set()

_core.StreamTransport._sendfile_compatible = _private.SendfileMode.TRY_NATIVE
_core.SSLTransport._sendfile_compatible = _private.SendfileMode.FALLBACK
#: Whether asyncio sets a file's position even if nothing was sent: gh-150107.
_update: Any = _Loop._sock_sendfile_update_filepos  # type: ignore[attr-defined]
_SEEKS = _update.__code__.co_argcount == 3
#: Of a file that os.sendfile() cannot send.
_BLOCK_BYTES = 256 * 1024

_socket_init = _core_helpers.socket_type.__init__
#: Numbers are cheaper than members of an enum.
_INET, _INET6 = int(socket.AF_INET), int(socket.AF_INET6)
_TCP = int(socket.IPPROTO_TCP)
_NONBLOCKING_STREAM = int(
    socket.SOCK_STREAM | getattr(socket, "SOCK_NONBLOCK", 0)
)
#: The defaults of asyncio's create_connection().
_DEFAULT_OPTIONS: Any = getattr(
    _Loop.create_connection, "__kwdefaults__", None
)


def _numeric_address(host: Any, port: Any) -> tuple[Any, ...] | None:
    """Return the socket address of a numeric host, which needs no look-up."""
    if type(host) is not str or type(port) is not int:
        return None
    address: tuple[Any, ...] = host, port
    if _core.is_literal(_INET, address):
        return address
    address = host, port, 0, 0
    return address if _core.is_literal(_INET6, address) else None


def _keeping_given_socks(method: _Method, about: str | None = None) -> _Method:
    """Return asyncio's METHOD, which records the sockets it is given.

    ABOUT is its docstring, else asyncio's.
    """
    name = method.__name__

    @functools.wraps(method)
    async def connect(self: Any, *args: Any, **kwargs: Any) -> Any:
        given = [
            id(sock)
            for sock in (*args, *kwargs.values())
            if isinstance(sock, _core_helpers.socket_type)
        ]
        _given_socks.update(given)
        call = getattr(super(Connections, self), name)
        try:
            made = await call(*args, **kwargs)
        finally:
            _given_socks.difference_update(given)
        if given and isinstance(made, asyncio.Server):
            made._has_given_sock = True  # type: ignore[attr-defined]
        return made

    connect.__doc__ = about or connect.__doc__
    return connect  # type: ignore[return-value]


class Connections(_private.LoopPart):
    """The methods of a loop that make transports and servers."""

    # -- streams --------------------------------------------------------------

    def _is_shared(self, sock: socket.socket, kind: int) -> int:
        """Whether a program may use the socket itself.

        It gave the socket, or made it, as asyncio's methods make sockets of
        one kind only: programs pass others (SEQPACKET) to private methods.
        One of SCTP counts, too, as 2: there each send is a message.
        """
        if sock.proto == _SCTP:
            return 2
        known = id(sock) in _given_socks
        return known or _core_helpers.number_of_type(sock) != kind

    @functools.wraps(_Loop.create_connection)
    async def create_connection(  # type: ignore[override]
        self,
        protocol_factory: Any,
        host: Any = None,
        port: Any = None,
        **options: Any,
    ) -> Any:
        address = _numeric_address(host, port)
        if (
            address is None
            or not _DEFAULT_OPTIONS  # a program has wrapped asyncio's method
            or (options and not options.items() <= _DEFAULT_OPTIONS.items())
            # pytest-socket and mocket replace the class, other programs what
            # sets its options or connects it.
            or socket.socket is not _core_helpers.socket_type
            or socket.socket.__init__ is not _socket_init
            or not _core.is_plain_class(socket.socket)
            or getattr(self.sock_connect, "__func__", None)
            is not SocketCalls.sock_connect
            or self._debug
        ):
            # As _keeping_given_socks(), whose coroutine would be one more.
            given = id(options.get("sock"))
            _given_socks.add(given)
            try:
                return await super().create_connection(
                    protocol_factory, host, port, **options
                )
            finally:
                _given_socks.discard(given)
        # asyncio makes these steps in four nested coroutines, which take
        # a quarter of a connection's instructions.
        sock = socket.socket(
            _INET if len(address) == 2 else _INET6,
            _NONBLOCKING_STREAM,
            _TCP,
        )
        try:
            if _NONBLOCKING_STREAM == socket.SOCK_STREAM:
                sock.setblocking(False)
            call = _core.sock_connect(self, sock, address)
            if call is not None:
                try:
                    await call
                finally:
                    call.close()
            protocol = protocol_factory()
            waiter = self.create_future()
            transport = self._make_socket_transport(sock, protocol, waiter)
        except BaseException:
            sock.close()
            raise
        try:
            await waiter
        except BaseException:
            transport.close()
            raise
        return transport, protocol

    create_server = _keeping_given_socks(_Loop.create_server)
    create_unix_server = _keeping_given_socks(_Loop.create_unix_server)
    create_datagram_endpoint = _keeping_given_socks(  # type: ignore[assignment]
        _Loop.create_datagram_endpoint,
        """Create a datagram transport and its protocol.

        ``local_addr`` and ``remote_addr`` are (host, port), or a path for
        a Unix socket; or ``sock`` is a socket that is bound already.
        Returns (transport, protocol).  Raises OSError if an address cannot
        be bound or connected, ValueError for arguments that exclude each
        other, TypeError for an address of another form.  Implements
        asyncio's ``loop.create_datagram_endpoint()``.
        """,
    )
    create_unix_connection = _keeping_given_socks(
        _Loop.create_unix_connection,
        """Connect to a Unix socket; return (transport, protocol).

        ``path`` is that of the peer; or ``sock`` is connected already.
        The timeouts are in seconds.  Raises OSError if the connection
        fails, ValueError for arguments that contradict each other or are
        missing, and what ``start_tls`` raises.  Implements asyncio's
        ``loop.create_unix_connection()``.
        """,
    )
    connect_accepted_socket = _keeping_given_socks(
        _Loop.connect_accepted_socket,
        """Serve a connected socket that the program has accepted.

        Returns (transport, protocol).  The timeouts are in seconds.
        Raises ValueError for a socket that is no stream or for a timeout
        without ``ssl``, and what ``start_tls`` raises.  Implements
        asyncio's ``loop.connect_accepted_socket()``.
        """,
    )

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
        """Return a C transport; or asyncio's if the socket's class overrides
        socket methods, because only asyncio's transport calls those.
        """
        if _core.is_plain_class(type(sock)) or _originals.inherits(
            sock, *_originals.STREAM_CALLS
        ):
            fd_shared = self._is_shared(sock, socket.SOCK_STREAM)
            return _core.open_stream(
                self, sock, fd_shared, protocol, waiter, extra, server, context
            )
        self._ensure_fd_no_transport(sock)
        more = {} if sys.version_info < (3, 15) else {"context": context}
        return super()._make_socket_transport(
            sock, protocol, waiter, extra=extra, server=server, **more
        )

    def _make_ssl_transport(
        self,
        rawsock: socket.socket,
        protocol: asyncio.BaseProtocol,
        sslcontext: Any,
        waiter: Any = None,
        *,
        extra: dict[str, Any] | None = None,
        server: Any = None,
        context: Any = None,
        **more: Any,
    ) -> Any:
        self._ensure_fd_no_transport(rawsock)
        tls = self._make_tls(protocol, sslcontext, waiter, **more)
        # Not self's own: a subclass may have replaced that for plain streams.
        Connections._make_socket_transport(
            self, rawsock, tls, extra=extra, server=server, context=context
        )
        return tls._app_transport

    def _make_tls(self, *args: Any, **kwargs: Any) -> Any:
        """Return a TLS adapter; asyncio's SSLProtocol without native TLS."""
        if ssl is None or not self._has_native_tls:
            return sslproto.SSLProtocol(self, *args, **kwargs)
        from . import _tls

        return _tls.open_adapter(self, *args, **kwargs)

    async def start_tls(
        self,
        transport: Any,
        protocol: asyncio.BaseProtocol,
        sslcontext: ssl.SSLContext,
        *,
        server_side: bool = False,
        server_hostname: str | None = None,
        ssl_handshake_timeout: float | None = None,
        ssl_shutdown_timeout: float | None = None,
    ) -> asyncio.Transport | None:
        """Upgrade a transport to TLS; return the protocol's new transport.

        ``ssl_handshake_timeout`` (60 by default) and ``ssl_shutdown_timeout``
        (30) are in seconds.  Raises TypeError for an unsuitable transport or
        context, and ValueError for a timeout that is not positive.  Closes the
        transport and raises ssl.SSLError if the handshake fails,
        ConnectionAbortedError if it takes too long, another OSError if the
        connection is lost.  Implements asyncio's ``loop.start_tls()``.
        Difference: bytes that a StreamReader has already buffered are passed
        to TLS.
        """
        if ssl is None:
            raise RuntimeError("Python ssl module is not available")
        if not isinstance(sslcontext, ssl.SSLContext):
            raise TypeError(
                "sslcontext is expected to be an instance of ssl.SSLContext, "
                f"got {sslcontext!r}"
            )
        if not getattr(transport, "_start_tls_compatible", False):
            raise TypeError(
                f"transport {transport!r} is not supported by start_tls()"
            )
        waiter: Any = self.create_future()
        tls = self._make_tls(
            protocol,
            sslcontext,
            waiter,
            server_side=server_side,
            server_hostname=server_hostname,
            ssl_handshake_timeout=ssl_handshake_timeout,
            ssl_shutdown_timeout=ssl_shutdown_timeout,
            call_connection_made=False,
        )
        # The adapter must get no data before its connection_made().
        transport.pause_reading()
        _take_read_ahead(protocol, tls)
        if getattr(transport, "_protocol_paused", False):
            # The transport will call the adapter's resume_writing(), and the
            # adapter the protocol's.
            tls.pause_writing()
        transport.set_protocol(tls)
        made = self.call_soon(tls.connection_made, transport)
        resumed = self.call_soon(transport.resume_reading)
        try:
            await waiter
        except BaseException:
            if not isinstance(tls, sslproto.SSLProtocol):
                tls._abandon()
            transport.close()
            made.cancel()
            resumed.cancel()
            raise
        finally:
            waiter = None
        return tls._app_transport  # type: ignore[no-any-return]

    async def _sendfile_native(
        self, transp: Any, file: Any, offset: int, count: int | None
    ) -> int:
        """Send a file with os.sendfile(), which the transport waits for.

        Like asyncio's, but the end of the transport ends it too.
        """
        if not isinstance(transp, _core.StreamTransport):
            return await super()._sendfile_native(  # type: ignore[no-any-return]
                transp, file, offset, count
            )
        # transp._sock would end corking on this connection.
        sock = transp.get_extra_info("socket")._socket
        self._check_sendfile_params(sock, file, offset, count)
        try:
            source = file.fileno()
            size = count or os.fstat(source).st_size - offset
        except (AttributeError, OSError) as exc:
            raise asyncio.SendfileNotAvailableError("no regular file") from exc
        total = 0
        resume_reading = transp.is_reading()
        transp.pause_reading()
        try:
            waits = transp._block_writes(True)
            while total < size:
                if waits:
                    waiter = self.create_future()
                    transp._block_writes(waiter)
                    try:
                        await waiter
                    finally:
                        transp._block_writes(None)
                waits = True
                if transp.is_closing():
                    raise ConnectionError("Connection is closed by peer")
                _core._flush_corked()  # it would overtake corked writes
                block = min(size - total, 1 << 30)  # else 32 bits overflow
                try:
                    sent = os.sendfile(
                        sock.fileno(), source, offset + total, block
                    )
                except (BlockingIOError, InterruptedError):
                    continue
                except OSError as exc:
                    if not total:
                        raise asyncio.SendfileNotAvailableError(
                            "os.sendfile call failed"
                        ) from exc
                    if exc.errno == errno.ENOTCONN:  # macOS's for a reset
                        raise ConnectionError(*exc.args) from exc
                    raise
                if not sent:
                    break
                total += sent
        finally:
            if resume_reading:
                transp.resume_reading()
            if (total or _SEEKS) and not getattr(file, "closed", False):
                os.lseek(source, offset + total, os.SEEK_SET)
        await asyncio.sleep(0)  # what sends files alone leaves others a turn
        return total

    async def _sendfile_fallback(
        self, transp: Any, file: Any, offset: int, count: int | None
    ) -> int:
        """As asyncio's, whose blocks of 16 KiB cost a hop to a thread each.

        It raises where the transport has dropped bytes: a TLS peer may leave
        while a block is read.
        """
        if (offset or _SEEKS) and hasattr(file, "seek"):
            file.seek(offset)
        view = memoryview(bytearray(min(count or _BLOCK_BYTES, _BLOCK_BYTES)))
        total = 0
        protocol = _private.SendfileProtocol(transp)
        try:
            while not count or total < count:
                block = view[: count - total] if count else view
                size = await self.run_in_executor(None, file.readinto, block)
                if not size:
                    break
                transp.write(block[:size])
                await protocol.drain()
                total += size
        finally:
            try:
                if total and hasattr(file, "seek"):
                    file.seek(offset + total)
            finally:  # also if the program has closed the file
                await protocol.restore()
        counted = getattr(transp, "_ssl_protocol", transp)
        if counted._conn_lost > transp.is_closing():  # the loss counts as one
            raise ConnectionError("Connection is closed by peer")
        return total

    # -- subprocesses ---------------------------------------------------------

    async def _make_subprocess_transport(
        self, protocol: Any, *args: Any, **kwargs: Any
    ) -> Any:
        _core._flush_corked()  # the process may wait for corked writes
        if self._debug:  # before the process is started
            self._check_callback(protocol.connection_made, "call_soon")
        return await super()._make_subprocess_transport(
            protocol, *args, **kwargs
        )

    # -- pipes ----------------------------------------------------------------

    def _make_write_pipe_transport(self, *args: Any, **kwargs: Any) -> Any:
        return _UnixWritePipeTransport(self, *args, **kwargs)

    # -- datagrams ------------------------------------------------------------

    def _make_datagram_transport(
        self,
        sock: socket.socket,
        protocol: asyncio.DatagramProtocol,
        address: Any = None,
        waiter: asyncio.Future[None] | None = None,
        extra: dict[str, Any] | None = None,
    ) -> Any:
        if sock.family not in _DATAGRAM_FAMILIES or not (
            _core.is_plain_class(type(sock))
            or _originals.inherits(sock, *_originals.DATAGRAM_CALLS)
        ):
            return super()._make_datagram_transport(
                sock, protocol, address, waiter, extra
            )
        known = dict(extra or {})
        fd_shared = self._is_shared(sock, socket.SOCK_DGRAM)
        transport = _core.open_datagram(
            self, sock, fd_shared, protocol, address or None, waiter, known
        )
        known["socket"] = _core_helpers.TransportSocket(sock, transport)
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
        *more: Any,
        context: Any = None,
        **options: Any,
    ) -> None:
        times = ssl_handshake_timeout, ssl_shutdown_timeout
        # Only asyncio's method knows what a later CPython's servers pass.
        if more or options or not _originals.accepts_as_a_socket(sock):
            given = protocol_factory, sock, sslcontext, server, backlog, *times
            if context is not None:
                options["context"] = context
            super()._start_serving(*given, *more, **options)
            return
        accept_tls = None
        if sslcontext is not None:
            made = protocol_factory, sslcontext, server, *times
            accept_tls = functools.partial(self._accept_tls, *made)

        # Other workers may have a socket that the program gave.  One that is
        # no socket.socket is the program's too: gunicorn's wraps one.
        shared = (
            not isinstance(sock, _core_helpers.socket_type)
            or id(sock) in _given_socks
            or hasattr(server, "_has_given_sock")  # one that starts later
        )
        _core.start_accepting(
            self,
            sock,
            protocol_factory,
            server,
            sock.proto == _SCTP,
            shared,
            accept_tls,
            context,
        )

    def _stop_serving(self, sock: socket.socket) -> None:
        _core._flush_corked()  # the close would overtake the bytes
        super()._stop_serving(sock)

    def _accept_tls(
        self,
        protocol_factory: Any,
        sslcontext: Any,
        server: Any,
        handshake_timeout: float,
        shutdown_timeout: float,
        conn: socket.socket,
        peer: Any,
    ) -> None:
        """Begin a TLS connection on an accepted socket, as asyncio does.

        Difference: a factory's exception is reported, as without TLS.
        asyncio's method, which would call it, reports it in debug mode alone,
        or always (gh-155934).
        """

        async def accept() -> None:
            try:
                protocol = protocol_factory()
            except BaseException as exc:
                _core._flush_corked()  # the close would overtake the bytes
                conn.close()
                if isinstance(exc, (SystemExit, KeyboardInterrupt)):
                    raise
                self._accept_failed(exc)
                return
            await self._accept_connection2(
                lambda: protocol,
                conn,
                # Else, as of AF_VSOCK, the socket is asked for it.
                {} if peer is None else {"peername": peer},
                sslcontext,
                server,
                handshake_timeout,
                shutdown_timeout,
            )

        self.create_task(accept())

    def _accept_exhausted(
        self, exc: OSError, sock: socket.socket, listener: Any
    ) -> None:
        """Report that accept() ran out of fds or memory.

        Resumes the paused listener after ACCEPT_RETRY_DELAY.
        """

        def again() -> None:
            if sock.fileno() != -1:  # else the server has closed it
                self._add_reader(sock.fileno(), listener)

        self.call_later(constants.ACCEPT_RETRY_DELAY, again)
        self.call_exception_handler(
            {
                "message": "socket.accept() out of system resource",
                "exception": exc,
                "socket": TransportSocket(sock),
            }
        )

    def _accept_failed(
        self, exc: BaseException, protocol: object = None
    ) -> None:
        """Report an accepted connection that got no transport."""
        context: dict[str, Any] = {
            "message": "Error on transport creation for incoming connection",
            "exception": exc,
        }
        if protocol is not None:
            context["protocol"] = protocol
        self.call_exception_handler(context)


class _UnixWritePipeTransport(_private.WritePipeTransport):  # type: ignore[misc]
    """asyncio's, whose bytes leave behind what was written before them."""

    def write(self, data: Any) -> None:
        _core._flush_corked()
        super().write(data)


def _take_read_ahead(protocol: Any, tls: Any) -> None:
    """Move TLS records that a StreamReader has buffered to the adapter."""
    if not isinstance(protocol, asyncio.StreamReaderProtocol):
        return
    reader = getattr(protocol, "_stream_reader", None)
    buffer = getattr(reader, "_buffer", None)
    if not buffer or not isinstance(buffer, bytearray):
        return
    data = bytes(buffer)
    buffer.clear()
    if isinstance(tls, sslproto.SSLProtocol):
        tls._incoming.write(data)  # type: ignore[attr-defined]
    else:
        tls.data_received(data)
