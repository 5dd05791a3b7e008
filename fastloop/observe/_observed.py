"""Loops by name, for what observes them."""

from __future__ import annotations

import contextlib
import itertools
import os
import threading
import weakref

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator

    from fastloop.loop import Loop

#: Held while a loop is added, from the search for its observer on: two threads
#: may add their first loops at the same time.  A fork waits for it.
lock = threading.RLock()
if hasattr(os, "register_at_fork"):  # not on Windows
    os.register_at_fork(
        before=lock.acquire,
        after_in_parent=lock.release,
        after_in_child=lock.release,
    )


class NamedLoops:
    """Loops that an observer tells of, by name.  Keeps no loop alive."""

    def __init__(self) -> None:
        #: Each loop, and the process in which it got its name.
        self._by_name: dict[str, tuple[weakref.ref[Loop], int]] = {}

    def add(self, loop: Loop, name: str) -> bool:
        """Add a loop; return False if it has this name already.

        Raises ValueError if another open loop has it.  A forked child may
        give its parent's names to its own loops.
        """
        reference, pid = self._by_name.get(name, (None, 0))
        known = None if reference is None else reference()
        if known is not None and known is not loop and pid == os.getpid():
            if not known.is_closed():
                raise ValueError(f"another loop has the name {name!r}")
        self._by_name[name] = weakref.ref(loop), os.getpid()
        return known is not loop

    def add_unnamed(self, loop: Loop) -> str:
        """Add a loop as main, or as main-2 and so on if others have that.

        One that has a name keeps it.
        """
        for name, known in self:
            if known is loop:
                return name
        for number in itertools.count(1):
            name = f"main-{number}" if number > 1 else "main"
            with contextlib.suppress(ValueError):
                self.add(loop, name)
                break
        return name

    def __iter__(self) -> Iterator[tuple[str, Loop]]:
        """Yield the names and loops that are not closed.

        After a fork those of the parent run there alone.
        """
        for name, (reference, pid) in list(self._by_name.items()):
            loop = reference() if pid == os.getpid() else None
            if loop is not None and not loop.is_closed():
                yield name, loop
