"""fastloop: a fast event loop for asyncio, a C extension.

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

import os
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
    _HOMES |= dict.fromkeys(["Loop", "libuv_version"], "_loop._windows")


#: The source tree of fastloop, or the folder where it is installed.
_TOP = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
_IS_SOURCE = os.path.exists(os.path.join(_TOP, "setup.py"))
#: The version that is installed beside a source tree, if it is another one.
_other_version = ""


def _prefer_installed() -> None:
    """In a source tree that is not built: use the package that pip installed.

    After `pip install .` Python finds the tree first, in its own folder.
    """
    global _other_version
    from importlib.machinery import PathFinder

    core = f"{__name__}._core"
    if PathFinder.find_spec(core, __path__):
        return
    folders = [os.path.join(path, __name__) for path in sys.path]
    if (found := PathFinder.find_spec(core, folders)) and found.origin:
        from importlib import metadata

        home = os.path.dirname(found.origin)
        known = metadata.distributions(
            name="asyncio-fastloop", path=[os.path.dirname(home)]
        )
        version = next((each.version for each in known), "unknown")
        if version == __version__:
            __path__[:] = [home]
        else:
            _other_version = version


if _IS_SOURCE:
    _prefer_installed()

#: A text of the dynamic linker that has one of these means libuv.
_LIBUV = ("libuv.so", "libuv.1")


def _for_freezers() -> None:
    """Never called: Nuitka and its like only see import statements."""
    from . import _core, loop, policy, runner  # noqa: F401
    from ._loop import _core_helpers  # noqa: F401


def _load(module: str) -> ModuleType:
    """Import a module of the package; ImportError if the C core is missing."""
    from importlib import import_module

    core = f"{__name__}._core"
    try:
        return import_module(f"{__name__}.{module}")
    except ModuleNotFoundError as exc:
        if exc.name != core:
            raise
    except ImportError as exc:  # in an image that only the wheel was copied to
        if not exc.path or not any(map(exc.msg.count, _LIBUV)):
            raise
        raise ImportError(
            f"{exc}: install the libuv that fastloop was built with: "
            "`apt-get install libuv1` (Debian, Ubuntu), `dnf install libuv` "
            "(Fedora), `apk add libuv` (Alpine), `brew install libuv` (macOS)",
            name=core,
        ) from None
    except AttributeError as exc:
        raise ImportError(
            f"fastloop does not know this version of asyncio: {exc}",
            name=f"{__name__}.{module}",
        ) from exc
    version = f"Python {sys.version_info.major}.{sys.version_info.minor}"
    if not is_native:
        from ._loop._windows import ABOUT

        text = f"this part of fastloop needs its loop, and this is {ABOUT}"
    elif _IS_SOURCE:
        text = f"you are in the source tree of fastloop {__version__}, {_TOP},"
        text += f" where its C core is not built for this {version}: type "
        text += "`make build` or `pip install .` there"
        text += _other_version and f" ({_other_version} is installed)"
    else:
        text = f"fastloop in {_TOP} has no C core for this {version} on "
        text += f"{os.uname().machine}: install it again with this Python's "
        text += "own pip, `python -m pip install --force-reinstall`, from a "
        text += "wheel for it or a checkout of fastloop"
    raise ImportError(text, name=core)


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
            from ._loop._environment import other_installed

            is_unbuilt = exc.name == f"{__name__}._core"  # it says so
            if not is_unbuilt and (fault := other_installed()):
                raise ImportError(fault, name=__name__) from exc
            raise
        globals()[name] = value
        return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
