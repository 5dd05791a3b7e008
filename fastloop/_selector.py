"""asyncio's ``loop._selector``, for programs that read what is registered."""

from __future__ import annotations

import asyncio
import selectors
import weakref

from . import _core

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping
    from typing import Any, Protocol

    class _HasFileno(Protocol):
        def fileno(self) -> int: ...

    _Descriptor = int | _HasFileno

    from ._core import BaseLoop


class RegisteredDescriptors:
    """The descriptors of add_reader and add_writer, as a selector's map.

    asyncio's own transports look into it for their repr().
    """

    def __init__(self, loop: BaseLoop) -> None:
        self._loop = weakref.ref(loop)

    def get_map(self) -> Mapping[_Descriptor, selectors.SelectorKey]:
        """Return descriptor -> SelectorKey, data being (reader, writer)."""
        loop = self._loop()
        found: dict[_Descriptor, selectors.SelectorKey] = {}
        for fd, fileobj, *callbacks, _ in _core.fd_users(loop) if loop else ():
            reader, writer = (_as_handle(each, loop) for each in callbacks)
            if reader or writer:
                found[fd] = selectors.SelectorKey(
                    fd if fileobj is None else fileobj,
                    fd,
                    selectors.EVENT_READ * (reader is not None)
                    | selectors.EVENT_WRITE * (writer is not None),
                    (reader, writer),
                )
        return found

    def get_key(self, fileobj: _Descriptor) -> selectors.SelectorKey:
        """Return one descriptor's key; KeyError if it is not registered."""
        fd = fileobj if isinstance(fileobj, int) else fileobj.fileno()
        return self.get_map()[fd]


def _as_handle(callback: Any, loop: Any) -> asyncio.Handle | None:
    """Return what asyncio has for a reader or a writer.

    A SocketCall of ``sock_recv()`` and the like takes a handle's place.
    """
    if callback is None or isinstance(callback, asyncio.Handle):
        return callback
    return asyncio.Handle(callback, (), loop)
