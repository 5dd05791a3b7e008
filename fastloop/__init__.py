"""fastloop: a fast asyncio event loop, a C extension on libuv.

Run a program on it::

    import fastloop
    fastloop.run(main())

or give asyncio the factory: ``asyncio.Runner(loop_factory=
fastloop.new_event_loop)``; or, up to Python 3.15, ``fastloop.install()``.

The C core and asyncio are imported at the first use of a name, not before:
pytest imports this package for its plugin in every project that has fastloop
installed.  The word PYTEST_DONT_REWRITE keeps pytest from warning about a
program that imports fastloop before pytest.
"""

from __future__ import annotations

import sys

TYPE_CHECKING = False
if TYPE_CHECKING:
    from types import ModuleType

    from ._core import libuv_version
    from .loop import Loop
    from .policy import EventLoopPolicy, install
    from .runner import get_running_loop, new_event_loop, run

__version__ = "0.1.0"

#: Whether fastloop has a loop for this system.  On Windows asyncio's own takes
#: its place.
is_native = sys.platform != "win32"

__all__ = [
    "EventLoopPolicy",
    "Loop",
    "__version__",
    "get_running_loop",
    "install",
    "is_native",
    "libuv_version",
    "new_event_loop",
    "run",
]

_HOMES = {
    "EventLoopPolicy": "policy",
    "Loop": "loop",
    "get_running_loop": "runner",
    "install": "policy",
    "libuv_version": "_core",
    "new_event_loop": "runner",
    "run": "runner",
}
if not is_native:
    _HOMES |= {"Loop": "_windows", "libuv_version": "_windows"}


#: A text of the dynamic linker that has one of these means libuv.
_LIBUV = ("libuv.so", "libuv.1")


def _for_freezers() -> None:
    """Never called: Nuitka and its like only see import statements."""
    from . import _core, _core_helpers, loop, policy, runner  # noqa: F401


def _load(module: str) -> ModuleType:
    """Import a module of the package; ImportError if the C core is missing."""
    from importlib import import_module

    try:
        return import_module(f"{__name__}.{module}")
    except ModuleNotFoundError as exc:
        if exc.name != f"{__name__}._core":
            raise
    except ImportError as exc:  # in an image that only the wheel was copied to
        if not exc.path or not any(map(exc.msg.count, _LIBUV)):
            raise
        raise ImportError(
            f"{exc}: install the libuv that fastloop was built with: "
            "`apt-get install libuv1` (Debian, Ubuntu), `dnf install libuv` "
            "(Fedora), `apk add libuv` (Alpine), `brew install libuv` (macOS)",
            name=f"{__name__}._core",
        ) from None
    except AttributeError as exc:
        raise ImportError(
            f"fastloop does not know this version of asyncio: {exc}",
            name=f"{__name__}.{module}",
        ) from exc
    if not is_native:
        from ._windows import ABOUT

        raise ImportError(
            f"this part of fastloop needs its loop, and this is {ABOUT}",
            name=f"{__name__}._core",
        )
    import os

    version = f"Python {sys.version_info.major}.{sys.version_info.minor}"
    home = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
    if os.path.exists(os.path.join(home, "setup.py")):
        raise ImportError(
            f"you are in the source tree of fastloop, {home}, where its C "
            f"core is not built for this {version}: type `make build` there, "
            "or `pip install .` there and start Python in another folder",
            name=f"{__name__}._core",
        )
    raise ImportError(
        f"fastloop in {home} has no C core for this {version} on "
        f"{os.uname().machine}: install it again with this Python's own pip, "
        "`python -m pip install --force-reinstall`, from a wheel for it or a "
        "checkout of fastloop",
        name=f"{__name__}._core",
    )


if not TYPE_CHECKING:  # a type checker would accept any name otherwise

    def __getattr__(name: str) -> object:
        if name == "_core":  # from `from . import _core`
            return _load(name)
        if name not in _HOMES:
            raise AttributeError(
                f"module {__name__!r} has no attribute {name!r}"
            )
        try:
            value = getattr(_load(_HOMES[name]), name)
        except (ImportError, AttributeError) as exc:
            from ._environment import other_installed

            is_unbuilt = exc.name == f"{__name__}._core"  # it says so
            if not is_unbuilt and (fault := other_installed()):
                raise ImportError(fault, name=__name__) from exc
            raise
        globals()[name] = value
        return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
