"""Makes a kind of loop asyncio's default for an application.

What an application gets from `asyncio.run`, `asyncio.Runner`,
`asyncio.new_event_loop` and, where Python has policies, from the default
policy becomes this kind.  No policy is set and no deprecated name is touched,
so no Python version warns.  Code that names a class of loop keeps it.

Two modules are patched when the application imports them: uvicorn's loop
"auto", which would name a class, follows asyncio's default; and the processes
that multiprocessing starts have the same default.
"""

from __future__ import annotations

import asyncio
import atexit
import os
import sys
import sysconfig
from asyncio import unix_events
from contextlib import suppress
from functools import partial
from importlib import import_module
from importlib.machinery import PathFinder
from time import perf_counter

from fastloop._loop import _private
from fastloop._loop._environment import at_end_of_child, is_child

from .commands import HOME, tell

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from types import FrameType, ModuleType
    from typing import Any


def factory_of(kind: str) -> Callable[[], asyncio.AbstractEventLoop]:
    """Return what makes loops of a kind: a class where there is one.

    A kind is asyncio, the name of a module that has `Loop` or
    `new_event_loop` as fastloop and uvloop have, or `module:name`.  Raises
    ImportError or AttributeError if there is none.
    """
    if kind == "asyncio":
        return asyncio.SelectorEventLoop
    name, _, attribute = kind.partition(":")
    module = import_module(name)
    if not attribute:
        attribute = "Loop" if hasattr(module, "Loop") else "new_event_loop"
    return getattr(module, attribute)  # type: ignore[no-any-return]


def set_default_loop(kind: str, mark: str | None = None) -> None:
    """Make asyncio's default loops be of a kind, here and in children.

    mark is a file that gets the time, by perf_counter(), when a loop of the
    kind first runs.  Without one, a line on stderr says at the end if only
    other loops ran.  Raises as `factory_of` does.
    """
    # Before the module of the loop takes asyncio's function.
    if mark is None:
        _tell_of_other_loops()
    else:
        _mark_first_run(kind, mark)
    default = factory_of(kind)
    policy: Any = _private.DefaultPolicy
    if policy is not object:  # Python 3.16 has none
        policy._loop_factory = staticmethod(default)
    if hasattr(asyncio, "EventLoop"):  # from 3.13 on
        asyncio.EventLoop = unix_events.EventLoop = default  # type: ignore[attr-defined, misc, assignment, unused-ignore]
    patches: dict[str, Callable[[Any], None]] = {
        "uvicorn.loops.auto": partial(_patch_uvicorn, default),
        "multiprocessing.spawn": partial(_patch_multiprocessing, kind, mark),
    }
    for name in patches.keys() & sys.modules.keys():
        patches.pop(name)(sys.modules[name])
    sys.meta_path.insert(0, _Finder(patches))  # type: ignore[arg-type, unused-ignore]


def _mark_first_run(kind: str, mark: str) -> None:
    """Write the time when a loop first runs whose class is of a package."""
    package = kind.partition(":")[0].partition(".")[0]
    is_marked = False

    def ran(loop: asyncio.AbstractEventLoop) -> None:
        nonlocal is_marked
        own = type(loop).__module__.partition(".")[0]
        if own == package and not is_marked:
            is_marked = True
            # The program may have given up its rights.
            with suppress(OSError), open(mark, "a") as file:
                file.write(f"{perf_counter()}\n")

    _private.watch_runs(ran)


def _patch_uvicorn(default: Callable[[], Any], module: Any) -> None:
    """uvicorn asks for a factory from 0.36 on.

    Before, it has a policy set, and ignores what that returns.
    """

    def auto_loop(use_subprocess: bool = False) -> Callable[[], Any]:
        return default

    module.auto_loop_factory = module.auto_loop_setup = auto_loop


class _SetDefaultLoop:
    """Pickles as the call that gives a child the same default."""

    def __init__(self, kind: str, mark: str | None) -> None:
        self._words = kind, mark

    def __reduce__(self) -> tuple[Any, ...]:
        return set_default_loop, self._words


def _patch_multiprocessing(
    kind: str, mark: str | None, module: ModuleType
) -> None:
    """A child unpickles the preparation data before anything else."""
    prepare = module.get_preparation_data

    def get_preparation_data(name: str) -> dict[str, Any]:
        return {"fastloop": _SetDefaultLoop(kind, mark), **prepare(name)}

    module.get_preparation_data = get_preparation_data  # type: ignore[attr-defined]


class _Finder:
    """Finds modules, each of which it patches once it has been imported."""

    def __init__(self, patches: dict[str, Callable[[Any], None]]) -> None:
        self._patches = patches

    def find_spec(self, name: str, path: Any, target: Any = None) -> Any:
        if name not in self._patches:
            return None
        spec = PathFinder.find_spec(name, path)
        loader: Any = None if spec is None else spec.loader
        if loader is None:
            return spec
        exec_module = loader.exec_module

        def then_patch(module: ModuleType) -> None:
            exec_module(module)
            # A zip archive's loader loads its other modules, too.
            if patch := self._patches.pop(module.__name__, None):
                patch(module)

        loader.exec_module = then_patch
        return spec


#: Folders of the standard library.
_STANDARD = tuple(
    os.path.join(sysconfig.get_path(name), "")
    for name in ("stdlib", "platstdlib")
)
_OWN = os.path.join(HOME, "fastloop", "")


def _starter(frame: FrameType | None) -> str:
    """Return the file and line that started a loop: the first of the
    program's, or of a package if there is none of the program's.
    """
    first = ""
    while frame is not None:
        file = frame.f_code.co_filename
        place = f"{file}:{frame.f_lineno}"
        is_spawn = file == "<string>" and is_child()  # multiprocessing's `-c`
        if is_spawn or file.startswith((_OWN, "<frozen ")):
            pass
        elif "-packages/" in file:  # Debian's are dist-packages
            first = first or place
        elif not file.startswith(_STANDARD):
            return place
        frame = frame.f_back
    return first


def _tell_of_other_loops() -> None:
    """Have one sentence on stderr when this process ends, if it is due."""
    from fastloop.loop import Loop

    kinds: dict[type, str] = {}  # of the loops that ran, and who started one

    def ran(loop: asyncio.AbstractEventLoop) -> None:
        if not kinds:
            at_end_of_child(tell_if_due)
        if type(loop) not in kinds:
            kinds[type(loop)] = _starter(sys._getframe())

    def tell_if_due() -> None:
        if not kinds or any(issubclass(kind, Loop) for kind in kinds):
            return
        if getattr(sys.stderr, "closed", True):  # or None
            return
        names = " and ".join(
            f"{kind.__module__}.{kind.__name__}"
            + (f", which {place} started" if place else "")
            for kind, place in kinds.items()
        )
        who = f"process {os.getpid()}" if is_child() else "the program"
        kinds.clear()  # once, if this is called twice
        tell(f"{who} did not run on fastloop but on {names}")

    _private.watch_runs(ran)
    os.register_at_fork(after_in_child=kinds.clear)
    atexit.register(tell_if_due)
