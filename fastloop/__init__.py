"""fastloop: a fast asyncio event loop, a C extension on libuv.

Run a program on it::

    import fastloop
    fastloop.run(main())

or give asyncio the factory: ``asyncio.Runner(loop_factory=
fastloop.new_event_loop)``; or, up to Python 3.15, ``fastloop.install()``.

The core and asyncio are imported by the first use of a name, not before:
pytest imports this package for its plugin in every project that has fastloop
installed.  For programs that import it before pytest: PYTEST_DONT_REWRITE.
"""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    from ._core import libuv_version
    from .loop import Loop
    from .policy import EventLoopPolicy, install
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

_HOMES = {
    "EventLoopPolicy": "policy",
    "Loop": "loop",
    "install": "policy",
    "libuv_version": "_core",
    "new_event_loop": "runner",
    "run": "runner",
}


def __getattr__(name: str) -> object:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from importlib import import_module

    value = getattr(import_module(f"{__name__}.{_HOMES[name]}"), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
