"""Loops for tests, and the pytest plugin.

pytest imports this package in every project that has fastloop installed, so
its names are loaded at their first use.
"""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    from .seeded import SeededLoop
    from .virtual_time import DeadlockError, VirtualTimeLoop, run

__all__ = ["DeadlockError", "SeededLoop", "VirtualTimeLoop", "run"]

if not TYPE_CHECKING:

    def __getattr__(name: str) -> object:
        if name not in __all__:
            raise AttributeError(
                f"module {__name__!r} has no attribute {name!r}"
            )
        from . import seeded, virtual_time

        return getattr(seeded if name == "SeededLoop" else virtual_time, name)
