"""The class of stream readers whose bytes C appends and takes.

When its connection is made, an exact ``asyncio.StreamReader`` gets the class
``StreamReader`` of this module.  Its attributes are asyncio's, so asyncio's
methods may go on with a reader at any time: ``src/streams/reader.c``.
"""

from __future__ import annotations

import asyncio

from . import _core

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

_take = _core._take
_take_until = _core._take_until


class StreamReader(asyncio.StreamReader):
    """An ``asyncio.StreamReader`` whose buffer C fills and empties.

    A method calls C for each step.  The result is bytes, which it returns; or
    a future, which it awaits before the next step; or None, and asyncio's
    method takes over.
    """

    __slots__ = ()
    __doc__ = asyncio.StreamReader.__doc__

    async def read(self, n: int = -1) -> bytes:
        """Read up to `n` bytes, or until EOF if `n` is -1: see asyncio's."""
        waited = False
        while type(got := _take(self, n, waited, False)) is not bytes:
            if got is None:
                return await asyncio.StreamReader.read(self, n)
            try:
                await got  # type: ignore[misc]
            except BaseException:  # cancelled, or set_exception() was called
                self._waiter = None
                raise
            waited = True
        return got

    async def readexactly(self, n: int) -> bytes:
        """Read exactly `n` bytes: see asyncio's."""
        waited = False
        while type(got := _take(self, n, waited, True)) is not bytes:
            if got is None:
                return await asyncio.StreamReader.readexactly(self, n)
            try:
                await got  # type: ignore[misc]
            except BaseException:  # cancelled, or set_exception() was called
                self._waiter = None
                raise
            waited = True
        return got

    async def readuntil(self, separator: Any = b"\n") -> bytes:
        """Read until `separator` is found: see asyncio's."""
        searched = -1
        while type(got := _take_until(self, separator, searched)) is not bytes:
            if got is None:
                return await asyncio.StreamReader.readuntil(self, separator)
            searched = len(self._buffer)  # type: ignore[attr-defined]
            try:
                await got  # type: ignore[misc]
            except BaseException:  # cancelled, or set_exception() was called
                self._waiter = None
                raise
        return got

    async def readline(self) -> bytes:
        """Read until a newline is found: see asyncio's."""
        searched = -1
        while type(got := _take_until(self, b"\n", searched)) is not bytes:
            if got is None:
                return await asyncio.StreamReader.readline(self)
            searched = len(self._buffer)  # type: ignore[attr-defined]
            try:
                await got  # type: ignore[misc]
            except BaseException:  # cancelled, or set_exception() was called
                self._waiter = None
                raise
        return got


# type(reader) then reads as asyncio's class does, for logs and messages.
StreamReader.__module__ = asyncio.StreamReader.__module__
