"""What Windows has in the place of the C core: asyncio's own loop.

A program for fastloop runs there unchanged.  What asyncio's loop has not
raises one sentence.
"""

from __future__ import annotations

import asyncio

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import NoReturn

ABOUT = "asyncio's own loop: there is no native one for Windows"


def _refuse(what: str) -> NoReturn:
    raise NotImplementedError(
        f"{what} needs fastloop's loop, and this is {ABOUT}"
    )


class Loop(asyncio.ProactorEventLoop):  # type: ignore[name-defined, misc]
    """asyncio's Proactor loop.  What fastloop adds raises a sentence."""

    def enable_metrics(self, **asked: object) -> NoReturn:
        """Raise NotImplementedError."""
        _refuse("enable_metrics()")

    def metrics(self) -> NoReturn:
        """Raise NotImplementedError."""
        _refuse("metrics()")

    @property
    def slow_callback_hook(self) -> None:
        """None; to set another raises NotImplementedError."""

    @slow_callback_hook.setter
    def slow_callback_hook(self, hook: object) -> None:
        if hook is not None:
            _refuse("slow_callback_hook")


def libuv_version() -> NoReturn:
    """Raise NotImplementedError."""
    _refuse("libuv_version()")
