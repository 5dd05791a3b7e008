"""The sock_* methods of the loop: coroutines that call the C core.

A core function returns the result if the operation can be done at once.
Otherwise it returns a SocketCall, which is awaited.
"""

from __future__ import annotations

import socket

from .. import _core
from . import _core_helpers

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any, TypeVar

    _T = TypeVar("_T")

_Call = _core.SocketCall


async def _finish(call: _core.SocketCall[_T]) -> _T:
    """Wait for a call, which keeps its socket open meanwhile."""
    try:
        return await call
    finally:
        call.close()


class SocketCalls:
    """Methods of a loop for the user's own sockets.

    They raise what the socket raises, TypeError for an SSL socket, ValueError
    in debug mode for a blocking socket, and RuntimeError if a transport uses
    the descriptor.  A socket that is closed while one waits for it closes when
    that ends: ``docs/differences.md``.
    """

    async def sock_recv(self, sock: socket.socket, n: int) -> bytes:
        """Receive up to ``n`` bytes; b'' at EOF.

        Raises what the socket raises (OSError), TypeError for an SSL
        socket, RuntimeError if a transport uses it.  Implements
        asyncio's ``loop.sock_recv()``.
        """
        call = _core.sock_recv(self, sock, n)
        return await _finish(call) if isinstance(call, _Call) else call

    async def sock_recv_into(self, sock: socket.socket, buf: Any) -> int:
        """Receive into a writable buffer; return the number of bytes.

        Raises the same as ``sock_recv``, and TypeError for a read-only
        buffer.  Implements asyncio's ``loop.sock_recv_into()``.
        """
        call = _core.sock_recv_into(self, sock, buf)
        return await _finish(call) if isinstance(call, _Call) else call

    async def sock_recvfrom(
        self, sock: socket.socket, bufsize: int
    ) -> tuple[bytes, Any]:
        """Receive a datagram; return its bytes and its sender's address.

        ``bufsize`` is the maximum number of bytes; the rest of the datagram
        is lost.  Raises the same as ``sock_recv``.  Implements asyncio's
        ``loop.sock_recvfrom()``.
        """
        call = _core.sock_recvfrom(self, sock, bufsize)
        return await _finish(call) if isinstance(call, _Call) else call

    async def sock_recvfrom_into(
        self, sock: socket.socket, buf: Any, nbytes: int = 0
    ) -> tuple[int, Any]:
        """Receive a datagram into a buffer; return its size and its sender.

        ``nbytes`` is the maximum number of bytes; 0 is the buffer's length.
        Raises the same as ``sock_recv_into``, and ValueError if ``nbytes``
        exceeds that length.  Implements asyncio's
        ``loop.sock_recvfrom_into()``.
        """
        call = _core.sock_recvfrom_into(self, sock, buf, nbytes or len(buf))
        return await _finish(call) if isinstance(call, _Call) else call

    async def sock_sendall(self, sock: socket.socket, data: Any) -> None:
        """Send all of a buffer.

        Raises the same as ``sock_recv``; the number of bytes already sent is
        then unknown.  Implements asyncio's ``loop.sock_sendall()``.
        """
        call = _core.sock_sendall(self, sock, data)
        if isinstance(call, _Call):
            await _finish(call)

    async def sock_sendto(
        self, sock: socket.socket, data: Any, address: Any
    ) -> int:
        """Send a datagram to an address; return its size in bytes.

        Raises the same as ``sock_recv``.  Implements asyncio's
        ``loop.sock_sendto()``.
        """
        call = _core.sock_sendto(self, sock, data, address)
        return await _finish(call) if isinstance(call, _Call) else call

    async def sock_connect(self, sock: socket.socket, address: Any) -> None:
        """Connect to an address, which may contain a host name.

        Raises OSError if the connection fails, socket.gaierror for an unknown
        name, and the same as ``sock_recv``.  Implements asyncio's
        ``loop.sock_connect()``.
        """
        family = _core_helpers.family_of(sock)
        has_names = family in (socket.AF_INET, socket.AF_INET6)
        if has_names and not _core.is_literal(family, address):
            loop: Any = self
            _core_helpers.check_socket(sock, loop.get_debug())
            found = await loop._ensure_resolved(
                address,
                family=family,
                type=sock.type,
                proto=sock.proto,
                loop=loop,
            )
            address = found[0][4]
        call = _core.sock_connect(self, sock, address)
        if isinstance(call, _Call):
            try:  # as _finish(), whose coroutine would cost as much as this
                await call
            finally:
                call.close()

    async def sock_sendfile(
        self,
        sock: Any,
        file: Any,
        offset: int = 0,
        count: int | None = None,
        *,
        fallback: bool | None = True,
    ) -> int:
        """Send a file; return the number of bytes sent.

        ``offset`` and ``count`` are in bytes; ``count`` None sends to the end
        of the file.  Raises ValueError and TypeError for an unsuitable file,
        ``offset`` or ``count``, asyncio.SendfileNotAvailableError if
        ``fallback`` is False and os.sendfile() cannot be used, and the same as
        ``sock_recv``.  Implements asyncio's ``loop.sock_sendfile()``.
        """
        _core._flush_corked()  # os.sendfile() would overtake corked writes
        # The socket stays open meanwhile.  A mock is an instance of its class.
        counted = issubclass(type(sock), _core_helpers.socket_type)
        if counted:
            sock._io_refs += 1
        try:
            return await super().sock_sendfile(  # type: ignore[misc, no-any-return]
                sock, file, offset, count, fallback=fallback
            )
        finally:
            if counted:
                sock._decref_socketios()

    async def sock_accept(
        self, sock: socket.socket
    ) -> tuple[socket.socket, Any]:
        """Accept a connection; return its non-blocking socket and its peer.

        Raises the same as ``sock_recv``.  Implements asyncio's
        ``loop.sock_accept()``.
        """
        call = _core.sock_accept(self, sock)
        accepted = await _finish(call) if isinstance(call, _Call) else call
        accepted[0].setblocking(False)
        return accepted
