"""Has asyncio's C code call ``call_soon`` once, for the core to see how."""

from __future__ import annotations

import asyncio

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any


def call(record: Callable[..., Any]) -> None:
    """Complete a future whose loop's call_soon() is ``record``.

    Makes no call if asyncio's futures are not those in C.
    """
    if asyncio.Future.__module__ != "_asyncio":
        return

    class StubLoop:
        call_soon = staticmethod(record)

        @staticmethod
        def get_debug() -> bool:
            return False

    loop: Any = StubLoop()
    future: asyncio.Future[None] = asyncio.Future(loop=loop)
    future.add_done_callback(asyncio.Future.result)
    future.set_result(None)
