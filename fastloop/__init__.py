"""fastloop: a fast asyncio event loop, a C extension on libuv.

Run a program on it::

    import fastloop
    fastloop.run(main())

or give asyncio the factory: ``asyncio.Runner(loop_factory=
fastloop.new_event_loop)``; or, up to Python 3.15, ``fastloop.install()``.
"""

from __future__ import annotations

from ._core import libuv_version
from .loop import Loop
from .runner import new_event_loop, run

__version__ = "0.1.0"

__all__ = [
    "EventLoopPolicy",
    "Loop",
    "__version__",
    "install",
    "libuv_version",
    "new_event_loop",
    "run",
]


def __getattr__(name: str) -> object:
    # Policies are deprecated: importing fastloop must not touch them.
    if name in ("EventLoopPolicy", "install"):
        from . import policy

        return getattr(policy, name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
