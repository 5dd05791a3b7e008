"""The reader that a native stream gives to an ``asyncio.StreamReader`` object.

An exact ``asyncio.StreamReader`` takes this class when its connection is made
(see ``src/streams/native_reader.h``), and asyncio's own again when a program
keeps its ``_buffer``, looks at one that is not empty or at its ``__dict__``,
copies it, gives it a class, or puts a method in the place of one of asyncio's.
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
    """A plain reader, for asyncio's code to go on with a call that has waited.

    An exception that was set since its waiter was woken is for the next call.
    """

    _exception = None

    def __init__(self, reader: asyncio.StreamReader) -> None:
        self._reader = reader

    def __getattr__(self, name: str) -> Any:
        return getattr(self._reader, name)

    async def readuntil(self, separator: Any) -> bytes:
        plain: Any = self
        return await asyncio.StreamReader.readuntil(plain, separator)


class StreamReader(_core.NativeReader):
    """An ``asyncio.StreamReader`` whose buffer is in C.

    Each method takes what is there, or waits on a future and looks again.  No
    answer at all means that the object is a plain reader by now.
    """

    __slots__ = ()
    __doc__ = asyncio.StreamReader.__doc__

    async def read(self, n: int = -1) -> bytes:
        """Read up to `n` bytes, or to the end of file: see asyncio's."""
        if n < 0:
            return await asyncio.StreamReader.read(self, n)
        got = _take_some(self, n, False)
        if got.__class__ is not bytes:
            if got is None:
                return await asyncio.StreamReader.read(self, n)
            try:
                await got  # type: ignore[misc]
            except BaseException:
                self._waiter = None
                raise
            got = _take_some(self, n, True)
            if got is None:  # asyncio's read() goes on so: it waits but once
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
        if separator.__class__ is not bytes:
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
        """Add data to what can be read."""
        if not _feed(self, data):
            asyncio.StreamReader.feed_data(self, data)

    def at_eof(self) -> bool:
        """Return True if nothing is left and feed_eof() was called."""
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

    # Copies share the buffer of a plain reader: vars() makes this one plain.

    def __reduce_ex__(self, protocol: Any) -> Any:
        """Give what a plain reader is copied by."""
        vars(self)
        return asyncio.StreamReader.__reduce_ex__(self, protocol)

    def __reduce__(self) -> Any:
        """Give what a plain reader is copied by."""
        vars(self)
        return asyncio.StreamReader.__reduce__(self)

    def __getstate__(self) -> Any:
        """Give the attributes of a plain reader."""
        vars(self)
        return object.__getstate__(self)

    def __repr__(self) -> str:
        attributes = _attributes(self)
        if attributes is None:
            return super().__repr__()
        plain = object.__new__(asyncio.StreamReader)
        plain.__dict__.update(attributes)
        return repr(plain)


StreamReader.__module__ = asyncio.StreamReader.__module__
_core._use_stream_reader(StreamReader)
