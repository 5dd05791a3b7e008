"""What programs read of a loop: ``_selector``, ``_ready``, ``_scheduled``."""

from __future__ import annotations

import asyncio
import math
import selectors
import types
import weakref
from time import sleep

from .. import _core

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping
    from typing import Any

    from _typeshed import FileDescriptorLike

    from .._core import BaseLoop


#: How long a replaced select() waits at most, in seconds.
_WAIT_S = 0.001


class RegisteredDescriptors:
    """The descriptors of add_reader and add_writer, as a selector's map.

    asyncio's own transports look into it for their repr().  A test may replace
    select() to jump over waits, as aiotools' VirtualClock does.  As long as it
    is replaced, a callback in each iteration calls it if nothing is ready.
    """

    def __init__(self, loop: BaseLoop) -> None:
        self._loop: Any = weakref.ref(loop)
        self._is_queued = False

    def __setattr__(self, name: str, value: object) -> None:
        super().__setattr__(name, value)
        if name == "select" and not self._is_queued:
            self._is_queued = True
            _core.BaseLoop.call_soon_threadsafe(self._loop(), self._run_select)

    def _run_select(self) -> None:
        # A mock that ends puts back the method that it found.
        own = types.MethodType(RegisteredDescriptors.select, self)
        self._is_queued = self.select != own
        if not self._is_queued:
            return
        loop = self._loop()
        _core.BaseLoop.call_soon(loop, self._run_select)
        if len(loop._ready) == 1 and not loop._stopping:
            wait_s = max(0.0, loop._next_deadline - loop.time())
            self.select(None if wait_s == math.inf else wait_s)

    def get_map(self) -> Mapping[FileDescriptorLike, selectors.SelectorKey]:
        """Return descriptor -> SelectorKey, data being (reader, writer)."""
        loop = self._loop()
        found: dict[FileDescriptorLike, selectors.SelectorKey] = {}
        for fd, fileobj, *callbacks in loop._fd_users() if loop else ():
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

    def select(self, timeout: float | None = None) -> list[Any]:
        """Wait for a millisecond at most; the core itself looks for events.

        Raises RuntimeError if it is not replaced: a copy of nest_asyncio must
        not poll.  nest_asyncio itself asks ``_nest_patched``.
        """
        if not self._is_queued:
            raise RuntimeError(
                "fastloop's loop cannot run inside one of its callbacks by a "
                "copy of nest_asyncio: use nest_asyncio itself"
            )
        sleep(_WAIT_S if timeout is None else max(0, min(timeout, _WAIT_S)))
        return []


#: Of each loop whose _selector was read: a test may have replaced select().
_views: Any = weakref.WeakKeyDictionary()


def view_of(loop: Any) -> RegisteredDescriptors:
    """Return a loop's only view."""
    return _views.setdefault(loop, RegisteredDescriptors(loop))  # type: ignore[no-any-return]


class Ready:
    """Its length is the number of callbacks of a loop that are ready.

    Playwright stores ``loop._ready``, and waits until it is empty.
    """

    def __init__(self, loop: BaseLoop) -> None:
        self._loop = weakref.ref(loop)

    def __len__(self) -> int:
        loop = self._loop()
        return 0 if loop is None else loop._ready_count


def scheduled(loop: Any) -> list[Any]:
    """Return the timers of a loop, which refers to each, the first first."""
    import gc

    found = {
        id(each): each
        for each in gc.get_referents(loop)
        if isinstance(each, _core.TimerHandle) and each._scheduled
    }
    return sorted(found.values())


def _as_handle(callback: Any, loop: Any) -> asyncio.Handle | None:
    """Return what asyncio has for a reader or a writer.

    A SocketCall of ``sock_recv()`` and the like takes a handle's place.
    """
    if callback is None or isinstance(callback, asyncio.Handle):
        return callback
    return asyncio.Handle(callback, (), loop)
