"""What programs read of a loop: ``_selector``, ``_ready``, ``_scheduled``."""

from __future__ import annotations

import asyncio
import selectors
import weakref
from collections.abc import Sequence

from . import _core

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping
    from typing import Any, NoReturn

    from _typeshed import FileDescriptorLike

    from ._core import BaseLoop


class RegisteredDescriptors:
    """The descriptors of add_reader and add_writer, as a selector's map.

    asyncio's own transports look into it for their repr().
    """

    def __init__(self, loop: BaseLoop) -> None:
        self._loop = weakref.ref(loop)

    def get_map(self) -> Mapping[FileDescriptorLike, selectors.SelectorKey]:
        """Return descriptor -> SelectorKey, data being (reader, writer)."""
        loop = self._loop()
        found: dict[FileDescriptorLike, selectors.SelectorKey] = {}
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

    def get_key(self, fileobj: FileDescriptorLike) -> selectors.SelectorKey:
        """Return one descriptor's key; KeyError if it is not registered."""
        fd = fileobj if isinstance(fileobj, int) else fileobj.fileno()
        return self.get_map()[fd]

    def select(self, timeout: float | None = None) -> NoReturn:
        """Raise RuntimeError: a copy of nest_asyncio must not poll.

        The core polls.  nest_asyncio itself asks ``_nest_patched``.
        """
        raise RuntimeError(
            "fastloop's loop cannot run inside one of its callbacks by a "
            "copy of nest_asyncio: use nest_asyncio itself"
        )


class Handles(Sequence):  # type: ignore[type-arg]
    """The handles of a loop that wait, as they are at each look.

    Playwright stores ``loop._ready``, and waits until it is empty.
    """

    def __init__(
        self, loop: Any, find: Callable[[Any], list[Any]], order: Any = list
    ) -> None:
        self._loop = weakref.ref(loop)
        self._find, self._order = find, order

    def _found(self) -> list[Any]:
        loop = self._loop()
        return [] if loop is None else self._find(loop)

    def __len__(self) -> int:
        return len(self._found())

    def __getitem__(self, at: Any) -> Any:
        return self._order(self._found())[at]

    def __iter__(self) -> Iterator[Any]:
        return iter(self._order(self._found()))

    def __repr__(self) -> str:
        return repr(self._order(self._found()))


def _as_handle(callback: Any, loop: Any) -> asyncio.Handle | None:
    """Return what asyncio has for a reader or a writer.

    A SocketCall of ``sock_recv()`` and the like takes a handle's place.
    """
    if callback is None or isinstance(callback, asyncio.Handle):
        return callback
    return asyncio.Handle(callback, (), loop)
