"""The class of stream readers whose bytes are kept in C.

When its connection is made, an exact ``asyncio.StreamReader`` gets the class
``StreamReader`` of this module.  It gets asyncio's class back, for good, when
the application needs a plain reader: ``src/streams/native_reader.h`` says
when.
"""

from __future__ import annotations

import asyncio

from . import _core

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

_take = _core._take
_take_until = _core._take_until


class StreamReader(_core.NativeReader):
    """An ``asyncio.StreamReader`` whose buffer is in C.

    A method calls C for each step.  The result is bytes, which it returns; or
    a future, which it awaits before the next step; or None, and asyncio's
    method takes over.
    """

    __slots__ = ()
    __doc__ = asyncio.StreamReader.__doc__

    async def read(self, n: int = -1) -> bytes:
        """Read up to `n` bytes, or until EOF if `n` is -1: see asyncio's."""
        if n < 0:  # asyncio calls read() repeatedly, with positive numbers
            return await asyncio.StreamReader.read(self, n)
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
            except BaseException:
                self._waiter = None
                raise
            waited = True
        return got

    async def readuntil(self, separator: Any = b"\n") -> bytes:
        """Read until `separator` is found: see asyncio's."""
        if type(separator) is not bytes:  # from 3.13 on also a tuple
            return await asyncio.StreamReader.readuntil(self, separator)
        waited = False
        while (
            type(got := _take_until(self, separator, waited, False))
            is not bytes
        ):
            if got is None:
                return await asyncio.StreamReader.readuntil(self, separator)
            try:
                await got  # type: ignore[misc]
            except BaseException:
                self._waiter = None
                raise
            waited = True
        return got

    async def readline(self) -> bytes:
        """Read until a newline is found: see asyncio's."""
        waited = False
        while type(got := _take_until(self, b"\n", waited, True)) is not bytes:
            if got is None:
                return await asyncio.StreamReader.readline(self)
            try:
                await got  # type: ignore[misc]
            except BaseException:
                self._waiter = None
                raise
            waited = True
        return got


# type(reader) then reads as asyncio's class does, for logs and messages.
StreamReader.__module__ = asyncio.StreamReader.__module__
