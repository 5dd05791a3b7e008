"""The sock_* methods: coroutines over the C core's SocketCall.

What can be done at once never waits; the rest waits for the descriptor.
"""

from __future__ import annotations

from . import _core

TYPE_CHECKING = False
if TYPE_CHECKING:
    import socket
    from typing import Any

_Call = _core.SocketCall


class SocketCalls:
    """Methods of a loop for sockets of the user's own.

    They raise what the socket raises, TypeError for an SSL socket, ValueError
    in debug mode for a blocking one, and RuntimeError where a transport uses
    the descriptor.
    """

    async def sock_recv(self, sock: socket.socket, n: int) -> bytes:
        """Receive up to ``n`` bytes; b'' at the end of the stream.

        Implements asyncio's ``loop.sock_recv()``.
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

        Implements asyncio's ``loop.sock_recv_into()``.
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

        ``nbytes`` is the most to receive, 0 for the buffer's length.
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

        Implements asyncio's ``loop.sock_sendto()``.
        """
        call = _core.sock_sendto(self, sock, data, address)
        if not isinstance(call, _Call):
            return call
        try:
            return await call.future
        finally:
            call.release()

    async def sock_accept(
        self, sock: socket.socket
    ) -> tuple[socket.socket, Any]:
        """Accept a connection; return its non-blocking socket and its peer.

        Implements asyncio's ``loop.sock_accept()``.
        """
        call = _core.sock_accept(self, sock)
        if not isinstance(call, _Call):
            return call
        try:
            return await call.future
        finally:
            call.release()
