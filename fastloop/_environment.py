"""What the environment says of fastloop: FASTLOOP_* variables."""

from __future__ import annotations

import os

#: What a variable says for no, in any case of letters.
_NO = ("0", "false", "no", "off")


def variable(name: str, default: str = "") -> str:
    """Return the text of an environment variable; "" if it says no."""
    value = os.environ.get(name, default)
    return "" if value.lower() in _NO else value


def disabled_names() -> set[str]:
    """Return the names in FASTLOOP_DISABLE; ``loop`` is for is_off()."""
    return {*os.environ.get("FASTLOOP_DISABLE", "").replace(",", " ").split()}


def is_off() -> bool:
    """Whether FASTLOOP_DISABLE=loop gives programs asyncio's own loop.

    On Windows there is nothing to turn off.
    """
    from . import is_native

    if not is_native:
        return False
    from . import _core

    return _core.has_switches() and "loop" in disabled_names()
