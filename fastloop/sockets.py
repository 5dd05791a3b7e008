"""The sock_* methods: coroutines over the C core's SocketCall.

What can be done at once never waits; the rest waits for the descriptor.
"""

from __future__ import annotations

from . import _core

TYPE_CHECKING = False
if TYPE_CHECKING:
    import socket
    from collections.abc import Coroutine
    from typing import Any, TypeVar

    _T = TypeVar("_T")

_Call = _core.SocketCall


async def _using(
    sock: socket.socket, operation: Coroutine[Any, Any, _T]
) -> _T:
    """Run an operation; a close() of the socket meanwhile waits for it.

    It is counted as the socket's file objects are.
    """
    if not hasattr(sock, "_io_refs"):
        return await operation  # no socket of Python's
    sock._io_refs += 1
    try:
        return await operation
    finally:
        sock._decref_socketios()  # type: ignore[attr-defined]


class SocketCalls:
    """Methods of a loop for sockets of the user's own.

    They raise what the socket raises, TypeError for an SSL socket, ValueError
    in debug mode for a blocking one, and RuntimeError where a transport uses
    the descriptor.

    A socket may be closed while one of them waits for it: as in uvloop, and
    not as in asyncio, the operation goes on, and the close takes effect when
    it ends or is cancelled.
    """

    async def sock_recv(self, sock: socket.socket, n: int) -> bytes:
        """Receive up to ``n`` bytes; b'' at the end of the stream.

        Raises what the socket raises (OSError), TypeError for an SSL
        socket, RuntimeError where a transport uses it.  Implements
        asyncio's ``loop.sock_recv()``.
        """
        call = _core.sock_recv(self, sock, n)
        if not isinstance(call, _Call):
            return call
        try:
            return await call.future
        finally:
            call.release()

    async def sock_recv_into(self, sock: socket.socket, buf: Any) -> int:
        """Receive into a writable buffer; return how many bytes.

        Raises as ``sock_recv``, and TypeError for a buffer that cannot be
        written.  Implements asyncio's ``loop.sock_recv_into()``.
        """
        call = _core.sock_recv_into(self, sock, buf)
        if not isinstance(call, _Call):
            return call
        try:
            return await call.future
        finally:
            call.release()

    async def sock_recvfrom(
        self, sock: socket.socket, bufsize: int
    ) -> tuple[bytes, Any]:
        """Receive a datagram; return its bytes and its sender.

        ``bufsize`` is the most bytes of it to take.  Raises as ``sock_recv``.
        Implements asyncio's ``loop.sock_recvfrom()``.
        """
        call = _core.sock_recvfrom(self, sock, bufsize)
        if not isinstance(call, _Call):
            return call
        try:
            return await call.future
        finally:
            call.release()

    async def sock_recvfrom_into(
        self, sock: socket.socket, buf: Any, nbytes: int = 0
    ) -> tuple[int, Any]:
        """Receive a datagram into a buffer; return its size and its sender.

        ``nbytes`` is the most bytes to receive, 0 for the buffer's length.
        Raises as ``sock_recv_into``, ValueError for more than that length.
        Implements asyncio's ``loop.sock_recvfrom_into()``.
        """
        call = _core.sock_recvfrom_into(self, sock, buf, nbytes or len(buf))
        if not isinstance(call, _Call):
            return call
        try:
            return await call.future
        finally:
            call.release()

    async def sock_sendall(self, sock: socket.socket, data: Any) -> None:
        """Send all of a buffer.

        Raises as ``sock_recv``; how many bytes have gone then is unknown.
        Implements asyncio's ``loop.sock_sendall()``.
        """
        call = _core.sock_sendall(self, sock, data)
        if call is not None:
            try:
                await call.future
            finally:
                call.release()

    async def sock_sendto(
        self, sock: socket.socket, data: Any, address: Any
    ) -> int:
        """Send a datagram to an address; return its size in bytes.

        Raises as ``sock_recv``.  Implements asyncio's ``loop.sock_sendto()``.
        """
        call = _core.sock_sendto(self, sock, data, address)
        if not isinstance(call, _Call):
            return call
        try:
            return await call.future
        finally:
            call.release()

    async def sock_connect(self, sock: socket.socket, address: Any) -> None:
        """Connect to an address, which may have a name in it.

        Raises OSError when it is refused, socket.gaierror for an unknown
        name, and as ``sock_recv``.  Implements asyncio's
        ``loop.sock_connect()``.
        """
        if not _core.is_literal(address):
            await _using(sock, super().sock_connect(sock, address))  # type: ignore[misc]
            return
        call = _core.sock_connect(self, sock, address)
        if call is not None:
            try:
                await call.future
            finally:
                call.release()

    async def sock_sendfile(
        self,
        sock: socket.socket,
        file: Any,
        offset: int = 0,
        count: int | None = None,
        *,
        fallback: bool | None = True,
    ) -> int:
        """Send a file; return how many bytes.

        ``offset`` and ``count`` are in bytes, None for all there is.  Raises
        ValueError and TypeError for a file or numbers that do not fit, where
        ``fallback`` is False asyncio.SendfileNotAvailableError, and as
        ``sock_recv``.  Implements asyncio's ``loop.sock_sendfile()``.
        """
        _core._flush_corked()  # os.sendfile passes no gate of the core's
        sending = super().sock_sendfile(  # type: ignore[misc]
            sock, file, offset, count, fallback=fallback
        )
        return await _using(sock, sending)

    async def sock_accept(
        self, sock: socket.socket
    ) -> tuple[socket.socket, Any]:
        """Accept a connection; return its non-blocking socket and its peer.

        Raises as ``sock_recv``.  Implements asyncio's ``loop.sock_accept()``.
        """
        call = _core.sock_accept(self, sock)
        if not isinstance(call, _Call):
            return call
        try:
            return await call.future
        finally:
            call.release()
