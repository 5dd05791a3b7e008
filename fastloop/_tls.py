"""TLS set-up, and the rare events of a TLS connection.

The data path is C (src/tls/).  This module checks the arguments of a new
connection, has CPython create the SSLObject, and contains asyncio's messages.
"""

from __future__ import annotations

import functools
import logging
import ssl
import sys
from asyncio import constants, exceptions, sslproto

from . import _core

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

_logger = logging.getLogger("asyncio")

#: The file in which src/tls/libssl.c looks for libssl's functions.  None if
#: _ssl is built into the interpreter; SSLObject's methods are called then.
_library = getattr(sys.modules.get("_ssl"), "__file__", None)


def open_adapter(
    loop: Any,
    protocol: Any,
    sslcontext: Any,
    waiter: Any,
    *,
    server_side: bool = False,
    server_hostname: str | None = None,
    call_connection_made: bool = True,
    ssl_handshake_timeout: float | None = None,
    ssl_shutdown_timeout: float | None = None,
) -> Any:
    """Return the TlsAdapter of a new connection.

    It takes the arguments of asyncio's SSLProtocol and raises its errors:
    ValueError for a timeout that is not positive, and what wrap_bio() raises.
    """
    handshake = _timeout(
        "ssl_handshake_timeout",
        ssl_handshake_timeout,
        constants.SSL_HANDSHAKE_TIMEOUT,
    )
    shutdown = _timeout(
        "ssl_shutdown_timeout",
        ssl_shutdown_timeout,
        constants.SSL_SHUTDOWN_TIMEOUT,
    )
    if not sslcontext:
        sslcontext = sslproto._create_transport_context(
            server_side, server_hostname
        )
    incoming, outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
    # The core calls it and captures the SSL that OpenSSL creates meanwhile.
    wrap = functools.partial(
        sslcontext.wrap_bio,
        incoming,
        outgoing,
        server_side=server_side,
        server_hostname=(server_hostname or None) if not server_side else None,
    )
    return _core.open_tls(
        loop,
        protocol,
        sslcontext,
        waiter,
        wrap,
        incoming,
        outgoing,
        _library,
        not call_connection_made,
        handshake,
        shutdown,
    )


def _timeout(name: str, value: float | None, usual: float) -> float:
    """A timeout in seconds, with asyncio's default and check."""
    if value is None:
        return usual
    if value <= 0:
        raise ValueError(f"{name} should be a positive number, got {value}")
    return value


# -- what the core calls ------------------------------------------------------


def is_plain(sslobject: Any) -> bool:
    """Whether the core may call libssl in place of read() and write().

    True if both methods are CPython's own and the context has neither a
    message callback nor a key log, which would run Python while records are
    read.  The SSLObject's own context is checked: the application's
    wrap_bio() may have used another context.
    """
    # No generator expression: CPython 3.12 and 3.13 corrupt its code object if
    # there is no memory for its function.
    return (
        isinstance(sslobject, ssl.SSLObject)
        and _is_of_ssl(type(sslobject).read)
        and _is_of_ssl(type(sslobject).write)
        and getattr(sslobject.context, "_msg_callback", None) is None
        and getattr(sslobject.context, "keylog_filename", None) is None
    )


def _is_of_ssl(method: Any) -> bool:
    """Whether a function is defined in the ssl module, by its globals."""
    return getattr(method, "__globals__", None) is vars(ssl)


def state(name: str) -> sslproto.SSLProtocolState:
    """asyncio's enum member for a phase; see state_get in tls/adapter.c."""
    return sslproto.SSLProtocolState(name)


def read_limits(high: Any, low: Any) -> tuple[Any, Any]:
    """Read marks in bytes (high, low) with asyncio's defaults and checks."""
    return _limits(high, low, constants.FLOW_CONTROL_HIGH_WATER_SSL_READ)


def write_limits(high: Any, low: Any) -> tuple[Any, Any]:
    """Write marks in bytes (high, low) with asyncio's defaults and checks."""
    return _limits(high, low, constants.FLOW_CONTROL_HIGH_WATER_SSL_WRITE)


def _limits(high: Any, low: Any, size_kib: int) -> tuple[Any, Any]:
    marks: tuple[Any, Any] = sslproto.add_flowcontrol_defaults(
        high, low, size_kib
    )
    return marks


def handshake_timed_out(tls: Any) -> None:
    """End a connection whose handshake takes too long."""
    if tls._state is sslproto.SSLProtocolState.DO_HANDSHAKE:
        exc = ConnectionAbortedError(
            "SSL handshake is taking longer than "
            f"{tls._ssl_handshake_timeout} seconds: "
            "aborting the connection"
        )
        tls._fatal_error(exc)
        # A raw transport that was lost before start_tls() does not call
        # connection_lost again, and the waiter would never be resolved.
        tls._loop.call_soon(tls.connection_lost, exc)


def shutdown_timed_out(tls: Any) -> None:
    """End a connection whose peer does not send close_notify in time."""
    if tls._transport is not None and tls._state in (
        sslproto.SSLProtocolState.FLUSHING,
        sslproto.SSLProtocolState.SHUTDOWN,
    ):
        tls._transport._force_close(
            exceptions.TimeoutError("SSL shutdown timed out")
        )


#: The raw transport's message for an exception that asyncio's SSLProtocol lets
#: propagate into it.  It reports a CancelledError too.  src/tls/deferred.c has
#: the same text for calls that it postpones.
_CALL_FAILED = "Fatal error: protocol.buffer_updated() call failed."


def report_fatal(tls: Any, transport: Any, exc: Any, message: str) -> None:
    """Report the error that ends a connection, as SSLProtocol does."""
    # asyncio only logs an OSError, and does not report CancelledError.
    if isinstance(exc, OSError):
        if tls._loop.get_debug():
            _logger.debug("%r: %s", tls, message, exc_info=exc)
    elif message == _CALL_FAILED or not isinstance(
        exc, exceptions.CancelledError
    ):
        tls._loop.call_exception_handler(
            {
                "message": message,
                "exception": exc,
                "transport": transport,
                "protocol": tls,
            }
        )


def report_call(tls: Any, exc: BaseException, message: str) -> None:
    """Report an exception of pause_writing() or resume_writing()."""
    tls._loop.call_exception_handler(
        {
            "message": message,
            "exception": exc,
            "transport": tls._app_transport,
            "protocol": tls,
        }
    )


def log_event(tls: Any, text: str) -> None:
    """Log a message in debug mode; the connection is its %r."""
    _logger.debug(text, tls)


def log_handshake(tls: Any, began: float) -> None:
    """Log in debug mode how long a handshake took."""
    took_ms = (tls._loop.time() - began) * 1e3
    _logger.debug("%r: SSL handshake took %.1f ms", tls, took_ms)


def warn_closed() -> None:
    """Log asyncio's warning about writes to a closed connection."""
    _logger.warning("SSL connection is closed")


def warn_keep_open() -> None:
    """Log asyncio's warning: TLS has no half-close."""
    _logger.warning(
        "returning true from eof_received() has no effect when using ssl"
    )


_core.use_tls(
    sys.modules[__name__],
    sslproto.SSLAgainErrors,
    ssl.SSLError,
    ssl.SSLZeroReturnError,
    ssl.CertificateError,
)
