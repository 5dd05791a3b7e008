"""What fastloop finds around it: variables, its distribution, its process."""

from __future__ import annotations

import os
import sys

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

#: The name that pip knows fastloop by.  PyPI's ``fastloop`` is another
#: project.  Its package has this one's name, so files of the one replace files
#: of the other where both are installed.
NAME = "asyncio-fastloop"

#: What a FASTLOOP_* variable says for no, in any case of letters.
_NO = ("0", "false", "no", "off")


def variable(name: str, default: str = "") -> str:
    """Return its text; *default* if it has none; "" if it says no."""
    value = os.environ.get(name) or default
    return "" if value.lower() in _NO else value


def disabled_names() -> set[str]:
    """Return the names in FASTLOOP_DISABLE; ``loop`` is for is_off()."""
    return {*os.environ.get("FASTLOOP_DISABLE", "").replace(",", " ").split()}


def is_off() -> bool:
    """Whether FASTLOOP_DISABLE=loop gives programs asyncio's own loop.

    On Windows there is nothing to turn off.
    """
    from .. import is_native

    if not is_native:
        return False
    from .. import _core

    return _core.has_switches() and "loop" in disabled_names()


def other_installed() -> str:
    """Return a sentence if the other project is installed too, else ""."""
    from importlib.metadata import PackageNotFoundError, version

    try:
        version("fastloop")
    except PackageNotFoundError:
        return ""
    return (
        "the distribution `fastloop`, which is another project, is installed "
        f"here too, and files of the two replace each other: `pip uninstall "
        f"fastloop {NAME}`, then `pip install {NAME}`"
    )


def has_gil() -> bool:
    """Whether this process has a GIL now, which a module may turn on."""
    return bool(getattr(sys, "_is_gil_enabled", lambda: True)())


def is_child() -> bool:
    """Whether this is a process that multiprocessing has started."""
    found = sys.modules.get("multiprocessing.process")
    return found is not None and found.parent_process() is not None


def at_end_of_child(call: Callable[[], None]) -> None:
    """Call a function when this process ends, if it is such a process.

    One may end without the functions of `atexit`, which may also call this
    one: it must do its work once.
    """
    if is_child():
        util = sys.modules["multiprocessing.util"]
        util.Finalize(None, call, exitpriority=0)
