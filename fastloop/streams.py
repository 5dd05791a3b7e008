"""The class of stream readers whose bytes are kept in C.

When its connection is made, an exact ``asyncio.StreamReader`` gets the class
``StreamReader`` of this module.  It gets asyncio's class back, for good, when
the application needs a plain reader: it keeps the ``_buffer``, reads one that
is not empty, uses ``__dict__``, sets ``__class__``, copies the reader, or
replaces one of its methods.  ``src/streams/native_reader.h`` says it in full.
"""

from __future__ import annotations

import asyncio

from . import _core

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

__all__ = ["StreamReader"]

_take_some = _core._take_some
_take_exactly = _core._take_exactly
_take_until = _core._take_until
_take_line = _core._take_line
_feed = _core._feed
_at_eof = _core._at_eof
_is_native = _core._is_native
_maybe_resume = _core._maybe_resume
_attributes = _core._attributes


class _Continued:
    """A plain reader as asyncio's code sees it in the middle of a call.

    A reader may become plain while one of its methods waits.  asyncio's method
    then does the rest, from its beginning.  It would raise the reader's
    exception first; but one that was set since the waiter was woken belongs to
    the next call.  So this object has no exception, and else the reader's
    attributes.
    """

    _exception = None

    def __init__(self, reader: asyncio.StreamReader) -> None:
        self._reader = reader

    def __getattr__(self, name: str) -> Any:
        return getattr(self._reader, name)

    async def readuntil(self, separator: Any) -> bytes:
        # asyncio's readline() calls this, which must not see it either.
        plain: Any = self
        return await asyncio.StreamReader.readuntil(plain, separator)


class StreamReader(_core.NativeReader):
    """An ``asyncio.StreamReader`` whose buffer is in C.

    A method calls C for its first step.  The result is bytes, which it
    returns; or a future, which it awaits before the next step; or None if the
    object is a plain reader by now, and asyncio's method takes over.
    """

    __slots__ = ()
    __doc__ = asyncio.StreamReader.__doc__

    async def read(self, n: int = -1) -> bytes:
        """Read up to `n` bytes, or until EOF if `n` is -1: see asyncio's."""
        if n < 0:  # asyncio calls read() repeatedly, with positive numbers
            return await asyncio.StreamReader.read(self, n)
        got = _take_some(self, n, False)
        if got.__class__ is not bytes:
            if got is None:
                return await asyncio.StreamReader.read(self, n)
            try:
                await got  # type: ignore[misc]
            except BaseException:  # cancelled, or set_exception() was called
                self._waiter = None
                raise
            got = _take_some(self, n, True)
            if got is None:
                # A plain reader by now.  The rest of asyncio's read(), which
                # would wait again if it were called.
                got = bytes(self._buffer[:n])
                del self._buffer[:n]
                self._maybe_resume_transport()
        return got

    async def readexactly(self, n: int) -> bytes:
        """Read exactly `n` bytes: see asyncio's."""
        got = _take_exactly(self, n, False)
        if got is None:
            return await asyncio.StreamReader.readexactly(self, n)
        while got.__class__ is not bytes:
            try:
                await got  # type: ignore[misc]
            except BaseException:
                self._waiter = None
                raise
            got = _take_exactly(self, n, True)
            if got is None:
                plain: Any = _Continued(self)
                return await asyncio.StreamReader.readexactly(plain, n)
        return got

    async def readuntil(self, separator: Any = b"\n") -> bytes:
        """Read until `separator` is found: see asyncio's."""
        if separator.__class__ is not bytes:  # from 3.13 on also a tuple
            return await asyncio.StreamReader.readuntil(self, separator)
        got = _take_until(self, separator, False)
        if got is None:
            return await asyncio.StreamReader.readuntil(self, separator)
        while got.__class__ is not bytes:
            try:
                await got  # type: ignore[misc]
            except BaseException:
                self._waiter = None
                raise
            got = _take_until(self, separator, True)
            if got is None:
                plain: Any = _Continued(self)
                return await asyncio.StreamReader.readuntil(plain, separator)
        return got

    async def readline(self) -> bytes:
        """Read until a newline is found: see asyncio's."""
        got = _take_line(self, False)
        if got is None:
            return await asyncio.StreamReader.readline(self)
        while got.__class__ is not bytes:
            try:
                await got  # type: ignore[misc]
            except BaseException:
                self._waiter = None
                raise
            got = _take_line(self, True)
            if got is None:
                plain: Any = _Continued(self)
                return await asyncio.StreamReader.readline(plain)
        return got

    def feed_data(self, data: Any) -> None:
        """Append received bytes: see asyncio's."""
        if not _feed(self, data):
            asyncio.StreamReader.feed_data(self, data)

    def at_eof(self) -> bool:
        """Return True if feed_eof() was called and no bytes are left."""
        at_eof = _at_eof(self)
        return asyncio.StreamReader.at_eof(self) if at_eof is None else at_eof

    def exception(self) -> Exception | None:
        """Return the exception that was set, or None."""
        if _is_native(self):
            return self._exception
        return asyncio.StreamReader.exception(self)

    def _maybe_resume_transport(self) -> None:
        if not _maybe_resume(self):
            plain: Any = asyncio.StreamReader
            plain._maybe_resume_transport(self)

    # copy and pickle need the attributes in the __dict__, and a shallow copy
    # shares the _buffer.  vars() makes this reader plain.

    def __reduce_ex__(self, protocol: Any) -> Any:
        """Return what copies a plain reader."""
        vars(self)
        return asyncio.StreamReader.__reduce_ex__(self, protocol)

    def __reduce__(self) -> Any:
        """Return what copies a plain reader."""
        vars(self)
        return asyncio.StreamReader.__reduce__(self)

    def __getstate__(self) -> Any:
        """Return the attributes of a plain reader."""
        vars(self)
        return object.__getstate__(self)

    def __repr__(self) -> str:
        attributes = _attributes(self)
        if attributes is None:
            return super().__repr__()
        # asyncio's __repr__ of a temporary plain reader: self stays native.
        plain = object.__new__(asyncio.StreamReader)
        plain.__dict__.update(attributes)
        return repr(plain)


# type(reader) then reads as asyncio's class does, for logs and messages.
StreamReader.__module__ = asyncio.StreamReader.__module__
_core._use_stream_reader(StreamReader)
