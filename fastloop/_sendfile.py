"""Send files for ``loop.sendfile()``: by os.sendfile(), or in blocks."""

from __future__ import annotations

import asyncio
import errno
import io
import os
import sys
from asyncio.tasks import sleep  # tests replace asyncio.sleep

from . import _core
from ._private import SendfileProtocol

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

#: A 32-bit system rejects a larger size.
_MOST_BYTES = sys.maxsize // 2 + 1
#: Each block costs a hop through the executor.  asyncio's have 16 KiB.
_BLOCK_BYTES = 256 * 1024
#: Whether asyncio seeks to an offset of 0, too, and sets the file's position
#: even if nothing was sent: since gh-150107, which late releases of 3.13 have.
_update: Any = asyncio.SelectorEventLoop._sock_sendfile_update_filepos  # type: ignore[attr-defined]
_SEEKS = _update.__code__.co_argcount == 3


async def send_file(
    transp: Any, sock: Any, file: Any, offset: int, count: int | None
) -> int:
    """Send part of a file on a transport whose buffer is empty.

    Like asyncio's ``_sock_sendfile_native``, but it waits with the transport's
    own registration, only while the socket is full, and flushes corked writes
    first.  Returns the number of bytes sent.  Raises SendfileNotAvailableError
    if os.sendfile() cannot send the file, and ConnectionError if the transport
    ends.
    """
    try:
        source = file.fileno()
    except (AttributeError, io.UnsupportedOperation):
        raise asyncio.SendfileNotAvailableError("not a regular file") from None
    try:
        block = count or os.fstat(source).st_size
    except OSError:
        raise asyncio.SendfileNotAvailableError("not a regular file") from None
    if not block:
        return 0
    total, moves, waited = 0, True, False
    try:
        while total < (count or sys.maxsize):
            size = min(count - total if count else block, _MOST_BYTES)
            _core._flush_corked()  # os.sendfile() would overtake corked writes
            try:
                sent = os.sendfile(sock.fileno(), source, offset, size)
            except (BlockingIOError, InterruptedError):
                pass
            except OSError as exc:
                if not total:
                    raise asyncio.SendfileNotAvailableError(
                        "os.sendfile call failed"
                    ) from exc
                # Python has no subclass of OSError for it: as asyncio.
                if exc.errno == errno.ENOTCONN:
                    raise ConnectionError(
                        "socket is not connected", errno.ENOTCONN
                    ) from exc
                raise
            else:
                if not sent:
                    break
                offset += sent
                total += sent
                if sent == size:
                    continue  # there may be room for more
            waiter = asyncio.get_running_loop().create_future()
            transp._empty_waiter = waiter
            await waiter
            waited = True
            if transp.is_closing():
                raise ConnectionError("Connection is closed by peer")
        if total and not waited:
            await sleep(0)  # as in asyncio, other tasks run
    except (asyncio.CancelledError, GeneratorExit):
        # As in asyncio.  The program may have closed the file: its fd may be
        # another file's by now.
        moves = False
        raise
    finally:
        if moves and (total or _SEEKS):
            os.lseek(source, offset, os.SEEK_SET)
    return total


class _Protocol(SendfileProtocol):  # type: ignore[misc]
    """Stands in for a transport's protocol while blocks are sent.

    As asyncio's, also where the program cancels sendfile(): the protocol gets
    its connection_lost(), and knows whether writing is paused.
    """

    _write_ready_fut: Any
    _should_resume_writing: bool

    def connection_lost(self, exc: Exception | None) -> None:
        self._drop_cancelled()
        super().connection_lost(exc)

    def resume_writing(self) -> None:
        self._drop_cancelled()
        super().resume_writing()

    def eof_received(self) -> Any:
        return self._proto.eof_received()  # TLS ends while reading is paused

    def _drop_cancelled(self) -> None:
        if self._write_ready_fut and self._write_ready_fut.done():
            self._write_ready_fut = None

    async def restore(self) -> None:
        was_paused = self._should_resume_writing
        self._should_resume_writing = False  # it would resume unasked
        await super().restore()
        is_paused = self._transport._protocol_paused
        sends = (
            not self._transport.is_closing()
            or self._transport.get_write_buffer_size()
        )
        if is_paused != was_paused and sends:
            if is_paused:
                self._proto.pause_writing()
            else:
                self._proto.resume_writing()


async def send_blocks(
    loop: asyncio.AbstractEventLoop,
    transp: Any,
    file: Any,
    offset: int,
    count: int | None,
) -> int:
    """Send part of a file that os.sendfile() cannot send, such as over TLS.

    Like asyncio's ``_sendfile_fallback``, with larger blocks.
    """
    if hasattr(file, "seek") if _SEEKS else offset:
        file.seek(offset)
    size = min(count or _BLOCK_BYTES, _BLOCK_BYTES)
    block = memoryview(bytearray(size))
    total = 0
    protocol = _Protocol(transp)
    try:
        while size > 0:
            fill = block[:size]
            read = await loop.run_in_executor(None, file.readinto, fill)
            if not read:
                break
            if transp.is_closing():
                raise ConnectionError("Connection closed by peer")
            transp.write(bytes(block[:read]))
            await protocol.drain()
            total += read
            if count:
                size = min(size, count - total)
    finally:
        try:
            if total and hasattr(file, "seek"):
                file.seek(offset + total)
        finally:
            await protocol.restore()
    return total
