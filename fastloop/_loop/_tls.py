"""TLS set-up, and the rare events of a TLS connection.

The data path is C (src/tls/).  This module checks the arguments of a new
connection, has CPython create the SSLObject, and contains asyncio's messages.
"""

from __future__ import annotations

import functools
import logging
import os
import ssl
import sys
from asyncio import constants, exceptions, sslproto

from .. import _core
from . import _originals, _private

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

_logger = logging.getLogger("asyncio")

#: The file in which src/tls/engine_libssl.c looks for libssl's functions.
#: None if _ssl is built into the interpreter: SSLObject's methods are called.
_library = getattr(sys.modules.get("_ssl"), "__file__", None)
_library = _library and os.fsencode(_library)


#: asyncio's states, in the order of FlTlsPhase in src/tls/connection.h.
_STATES = tuple(
    map(
        sslproto.SSLProtocolState,
        "UNWRAPPED DO_HANDSHAKE WRAPPED FLUSHING SHUTDOWN UNWRAPPED UNWRAPPED "
        "UNWRAPPED".split(),
    )
)
_core.TlsAdapter._state = property(lambda tls: _STATES[tls._phase])


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
    default = constants.SSL_HANDSHAKE_TIMEOUT
    handshake = _timeout(
        "ssl_handshake_timeout", ssl_handshake_timeout, default
    )
    default = constants.SSL_SHUTDOWN_TIMEOUT
    shutdown = _timeout("ssl_shutdown_timeout", ssl_shutdown_timeout, default)
    if not sslcontext:
        sslcontext = _private.create_transport_context(
            server_side, server_hostname
        )
    # No nested function: CPython 3.12 and 3.13 corrupt its code object if
    # there is no memory for it.
    hostname = None if server_side else server_hostname or None
    wrap = functools.partial(_wrap, sslcontext, server_side, hostname)
    made = not call_connection_made
    tls = _core.open_tls(loop, protocol, wrap, _library, made)
    tls._sslcontext = tls._extra["sslcontext"] = sslcontext
    tls._waiter = waiter
    tls._ssl_handshake_timeout = handshake
    tls._ssl_shutdown_timeout = shutdown
    return tls


def _timeout(name: str, value: float | None, default: float) -> float:
    """A timeout in seconds, with asyncio's default and check."""
    if value is None:
        return default
    if value <= 0:
        raise ValueError(f"{name} should be a positive number, got {value}")
    return value


def _wrap(
    sslcontext: Any, server_side: bool, server_hostname: str | None
) -> tuple[Any, Any, Any, Any]:
    """Make an SSLObject; the core notes the SSL that OpenSSL creates.

    Returns four objects: the SSLObject; its _sslobj, or None if its methods
    have to be called; and its two MemoryBIOs.
    """
    incoming, outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
    sslobject = sslcontext.wrap_bio(
        incoming,
        outgoing,
        server_side=server_side,
        server_hostname=server_hostname,
    )
    owner = sslobject._sslobj if _is_plain(sslobject) else None
    return sslobject, owner, incoming, outgoing


def _is_plain(sslobject: Any) -> bool:
    """Whether the core may call libssl in place of read() and write().

    True if both methods are CPython's own and the context has neither a
    message callback nor a key log, which would run Python while records are
    read.  The SSLObject's own context is checked: the application's
    wrap_bio() may have used another context.
    """
    # No generator expression, as in open_adapter.
    return (
        issubclass(type(sslobject), ssl.SSLObject)  # and no proxy of one
        and _originals.is_defined_in(ssl, type(sslobject).read)
        and _originals.is_defined_in(ssl, type(sslobject).write)
        and "read" not in (own := vars(sslobject))
        and "write" not in own
        and getattr(sslobject.context, "_msg_callback", None) is None
        and getattr(sslobject.context, "keylog_filename", None) is None
    )


# -- what the core calls ------------------------------------------------------


def handshake_begins(tls: Any) -> None:
    """Start the handshake's timer."""
    if tls._loop.get_debug():
        _logger.debug("%r starts SSL handshake", tls)
    tls._timer = tls._loop.call_later(
        tls._ssl_handshake_timeout, handshake_timed_out, tls
    )


def handshake_timed_out(tls: Any) -> None:
    """End a connection whose handshake takes too long."""
    if tls._state is sslproto.SSLProtocolState.DO_HANDSHAKE:
        exc = ConnectionAbortedError(
            "SSL handshake is taking longer than "
            f"{tls._ssl_handshake_timeout} seconds: "
            "aborting the connection"
        )
        fatal(tls, exc, "Fatal error on transport")
        # A raw transport that was lost before start_tls() does not call
        # connection_lost again, and the waiter would never be resolved.
        tls._loop.call_soon(tls.connection_lost, exc)


def note_handshake(tls: Any, sslobj: Any, certificate: Any) -> None:
    """Stop the timer, and store what get_extra_info() answers from now on."""
    extra = tls._extra
    if extra is None:
        return  # getpeercert() has ended the connection
    timer = tls._timer
    if tls._state is sslproto.SSLProtocolState.WRAPPED:
        _stop_timer(tls)  # else it is the shutdown's: getpeercert() has closed
    if tls._loop.get_debug() and timer is not None:
        began = timer.when() - tls._ssl_handshake_timeout
        took_ms = (tls._loop.time() - began) * 1e3
        _logger.debug("%r: SSL handshake took %.1f ms", tls, took_ms)
    extra["peercert"] = certificate
    extra["cipher"] = sslobj.cipher()
    extra["compression"] = sslobj.compression()
    extra["ssl_object"] = sslobj


def report_handshake(tls: Any, exc: Exception, message: str) -> None:
    _stop_timer(tls)
    if isinstance(exc, ssl.CertificateError):
        message += " on verifying the certificate"
    fatal(tls, exc, message)
    wake_waiter(tls, exc)


def wake_waiter(tls: Any, exc: BaseException | None) -> None:
    """Tell the task that awaits the handshake."""
    waiter = tls._waiter
    if waiter is None:
        return
    if not waiter.cancelled():
        if exc is None:
            waiter.set_result(None)
        else:
            waiter.set_exception(exc)
    # Last, so that a Ctrl-C before leaves the waiter to connection_lost().
    tls._waiter = None


def shutdown_begins(tls: Any) -> None:
    """Stop the handshake's timer, if it runs, and start the shutdown's."""
    _stop_timer(tls)
    tls._timer = tls._loop.call_later(
        tls._ssl_shutdown_timeout, shutdown_timed_out, tls
    )


def shutdown_timed_out(tls: Any) -> None:
    """End a connection whose peer does not send close_notify in time."""
    if tls._transport is not None and tls._state in (
        sslproto.SSLProtocolState.FLUSHING,
        sslproto.SSLProtocolState.SHUTDOWN,
    ):
        tls._transport._force_close(
            exceptions.TimeoutError("SSL shutdown timed out")
        )


def shutdown_done(tls: Any) -> None:
    """Close the raw transport, which sends its buffer first."""
    if tls._transport is not None:
        tls._loop.call_soon(tls._transport.close)
    _stop_timer(tls)  # last: until then it ends the connection in any case


def connection_lost(tls: Any, protocol: Any, exc: Any) -> None:
    """Tell the protocol, if it is not None, and the waiter.

    Each step is taken whether or not the one before has failed.
    """
    try:
        if protocol is not None:
            tls._loop.call_soon(protocol.connection_lost, exc)
    finally:
        try:
            wake_waiter(tls, exc)
        finally:
            _stop_timer(tls)


def _stop_timer(tls: Any) -> None:
    timer, tls._timer = tls._timer, None
    if timer is not None:
        timer.cancel()


def fatal(tls: Any, exc: BaseException, message: str) -> None:
    """Close with an exception, then report it, as SSLProtocol does."""
    transport = tls._transport  # closing it may clear the attribute
    if transport is not None:
        transport._force_close(exc)
    # As asyncio: an OSError is only logged, and a CancelledError dropped that
    # comes from the protocol's eof_received(), as the message says.
    is_from_eof = message == "Error calling eof_received()"
    if isinstance(exc, OSError):
        if tls._loop.get_debug():
            _logger.debug("%r: %s", tls, message, exc_info=exc)
    elif not (is_from_eof and isinstance(exc, exceptions.CancelledError)):
        tls._loop.call_exception_handler(
            {
                "message": message,
                "exception": exc,
                "transport": transport,
                "protocol": tls,
            }
        )


def with_reason(exc: Any, text: str) -> Any:
    """*exc*, or the SSLError that has OpenSSL's reason, if *exc* has none."""
    if getattr(exc, "reason", None):
        return exc
    # CPython has the older names of OpenSSL's alerts.
    reason = text.upper().replace(" ", "_").replace("SSL/TLS", "SSLV3")
    named: Any = ssl.SSLError(ssl.SSL_ERROR_SSL, f"[SSL: {reason}] {text}")
    named.library, named.reason = "SSL", reason
    return named


def warn_closed() -> None:
    """Log asyncio's warning about writes to a closed connection."""
    _logger.warning("SSL connection is closed")


def warn_keep_open() -> None:
    """Log asyncio's warning: TLS has no half-close."""
    _logger.warning(
        "returning true from eof_received() has no effect when using ssl"
    )


# -- methods of SSLTransport --------------------------------------------------


def _set_write_buffer_limits(
    self: Any, high: Any = None, low: Any = None
) -> None:
    """Set the marks with asyncio's defaults for TLS, which are its own."""
    self._high_water, self._low_water = sslproto.add_flowcontrol_defaults(
        high, low, constants.FLOW_CONTROL_HIGH_WATER_SSL_WRITE
    )


def set_read_buffer_limits(
    self: Any, high: Any = None, low: Any = None
) -> None:
    """Set the marks, in bytes of records, at which the transport below is
    paused and resumed; asyncio's SSL transports have this method.
    """
    self._read_high_water, self._read_low_water = (
        sslproto.add_flowcontrol_defaults(
            high, low, constants.FLOW_CONTROL_HIGH_WATER_SSL_READ
        )
    )
    self._control_reading()


def get_read_buffer_limits(self: Any) -> tuple[int, int]:
    """Return the low and high marks of set_read_buffer_limits()."""
    return self._read_low_water, self._read_high_water


for _method in (
    _set_write_buffer_limits,
    set_read_buffer_limits,
    get_read_buffer_limits,
):
    setattr(_core.SSLTransport, _method.__name__, _method)

_core.use_tls(
    sys.modules[__name__],
    sslproto.SSLAgainErrors,
    ssl.SSLError,
    # The second is for a close_notify behind another warning (openssl#25254):
    # the MemoryBIO itself never ends.
    (ssl.SSLZeroReturnError, ssl.SSLEOFError),
)
