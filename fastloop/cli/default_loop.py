"""Makes a kind of loop asyncio's default for an application.

What an application gets from `asyncio.run`, `asyncio.Runner`,
`asyncio.new_event_loop` and, where Python has policies, from the default
policy becomes this kind.  No policy is set and no deprecated name is touched,
so no Python version warns.  Code that names a class of loop keeps it.

Three modules are patched when the application imports them: uvicorn's loop
"auto", which would name a class, follows asyncio's default; and the processes
that multiprocessing and execnet start (pytest-xdist's workers are execnet's)
have the same default.
"""

from __future__ import annotations

import asyncio
import sys
from asyncio import unix_events
from contextlib import suppress
from functools import partial
from importlib import import_module
from importlib.machinery import ModuleSpec, PathFinder
from importlib.util import find_spec
from pathlib import Path
from time import perf_counter

from fastloop import _private

from .commands import tell

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from types import ModuleType
    from typing import Any

__all__ = [
    "HOME",
    "USUAL",
    "Counted",
    "factory_of",
    "fault_of",
    "set_default_loop",
    "usual_loops",
]

#: Folder that has the package, for children that do not find it themselves.
HOME = str(Path(__file__).resolve().parents[2])
#: The loops that are compared if nobody names others.
USUAL = ("asyncio", "uvloop", "fastloop")


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
    made: Any = (
        getattr(module, attribute)
        if attribute
        else getattr(module, "Loop", None) or module.new_event_loop
    )
    factory: Callable[[], asyncio.AbstractEventLoop] = made
    return factory


def fault_of(kind: str) -> str:
    """Return why there is nothing that makes loops of a kind, or ""."""
    try:
        factory_of(kind)
    except Exception as exc:  # a module may raise anything
        return f"{type(exc).__name__}: {exc}"
    return ""


def usual_loops() -> list[str]:
    """Return those of `USUAL` that are installed.

    A uvloop that cannot be imported is left out, with a line on stderr.
    """
    fault = fault_of("uvloop")
    if fault and find_spec("uvloop") is not None:
        tell(f"uvloop is left out: {fault}")
    return [kind for kind in USUAL if kind != "uvloop" or not fault]


class Counted:
    """Makes loops and counts them.

    An object and not a function: as a class's attribute (unittest's
    loop_factory) it must not become a bound method.
    """

    __name__ = "fastloop"

    def __init__(self, kind: str, mark: str | None = None) -> None:
        #: A file that gets the time when the first loop is made, by
        #: perf_counter(), in this process or in a child.  None: no file.
        self.mark = mark
        self.made = 0
        self._make_loop = factory_of(kind)

    def __call__(self) -> asyncio.AbstractEventLoop:
        """Make a loop."""
        loop = self._make_loop()
        self._count()
        return loop

    def _count(self) -> None:
        if self.mark and not self.made:
            # It may have dropped privileges.
            with suppress(OSError), open(self.mark, "a") as file:
                file.write(f"{perf_counter()}\n")
        self.made += 1

    def as_class(self) -> Callable[[], asyncio.AbstractEventLoop]:
        """Return a class of the kind, whose loops count too.

        This object, where the kind is no class.
        """
        base: Any = self._make_loop
        if not isinstance(base, type):
            return self
        begin: Any = base.__init__  # type: ignore[misc, unused-ignore]

        def __init__(loop: Any, *args: Any, **options: Any) -> None:
            begin(loop, *args, **options)
            self._count()

        names = ("__doc__", "__module__", "__qualname__")
        same = {name: getattr(base, name) for name in names}
        return type(base.__name__, (base,), {**same, "__init__": __init__})


def set_default_loop(kind: str, counted: Counted | None = None) -> None:
    """Make asyncio's default loops be of a kind, in this process.

    counted, if given, makes them.  Raises as `factory_of` does.
    """
    default = factory_of(kind) if counted is None else counted.as_class()
    policy: Any = _private.DefaultPolicy
    if policy is not object:  # Python 3.16 has none
        policy._loop_factory = staticmethod(default)
    if hasattr(asyncio, "EventLoop"):  # from 3.13 on
        asyncio.EventLoop = unix_events.EventLoop = default  # type: ignore[attr-defined, misc, assignment, unused-ignore]
    _when_imported("uvicorn.loops.auto", lambda m: _patch_uvicorn(m, default))
    source = partial(_source, kind, counted.mark if counted else None)
    _when_imported(
        "multiprocessing.spawn",
        lambda m: _patch_multiprocessing(m, source),
    )
    _when_imported("execnet.multi", lambda m: _patch_execnet(m, source))


def _source(kind: str, mark: str | None, path: list[str]) -> str:
    """Return code that gives another process the same default.

    It runs before that process has its parent's `sys.path`, which is *path*.
    It does nothing where fastloop cannot be imported: a child may be of
    another Python, or on another machine.
    """
    tells = ""
    if kind == "fastloop" and mark is None:  # `run`
        tells = (
            "    from fastloop.cli.ending import tell_of_other_loops\n"
            "    tell_of_other_loops()\n"
        )
    return (
        "import sys\n"
        "own = sys.path[:]\n"
        f"sys.path += [one for one in {[HOME, *path]!r} if one not in own]\n"
        "try:\n"
        "    from fastloop import _core\n"
        "    from fastloop.cli import default_loop\n"
        "except ImportError:\n"
        "    pass\n"
        "else:\n"
        f"    counted = default_loop.Counted({kind!r}, {mark!r})\n"
        f"    default_loop.set_default_loop({kind!r}, counted)\n"
        f"{tells}"
        f"    own.append({HOME!r})\n"
        "finally:\n"
        "    sys.path[:] = own\n"
    )


def _patch_uvicorn(module: ModuleType, factory: Callable[[], Any]) -> None:
    """uvicorn asks for a factory from 0.36 on, and for a policy before."""

    def auto_loop_factory(use_subprocess: bool = False) -> Callable[[], Any]:
        return factory

    def auto_loop_setup(use_subprocess: bool = False) -> None:
        """Leave asyncio's default, which is ours."""

    changes = {
        "auto_loop_factory": auto_loop_factory,
        "auto_loop_setup": auto_loop_setup,
    }
    for name, change in changes.items():
        if hasattr(module, name):
            setattr(module, name, change)


class _SetDefaultLoop:
    """Pickles as the call that gives a child the same default."""

    def __init__(self, source: str) -> None:
        self._source = source

    def __reduce__(self) -> tuple[Any, ...]:
        return exec, (self._source, {})


def _patch_multiprocessing(
    module: ModuleType, source: Callable[[list[str]], str]
) -> None:
    """A child unpickles the preparation data before anything else."""
    prepare = module.get_preparation_data

    def get_preparation_data(name: str) -> dict[str, Any]:
        data: dict[str, Any] = prepare(name)
        first = _SetDefaultLoop(source(data.get("sys_path", [])))
        return {"fastloop": first, **data}

    module.get_preparation_data = get_preparation_data  # type: ignore[attr-defined]


def _patch_execnet(
    module: ModuleType, source: Callable[[list[str]], str]
) -> None:
    """A worker on this machine is sent code before anything else."""
    make = module.Group.makegateway

    def makegateway(self: Any, spec: Any = None) -> Any:
        gateway = make(self, spec)
        if gateway.spec.popen:
            gateway.remote_exec(source(sys.path)).waitclose()
        return gateway

    module.Group.makegateway = makegateway
    # The method of the default group, bound before.
    module.makegateway = module.default_group.makegateway  # type: ignore[attr-defined]


class _Finder:
    """Finds one module, and patches it when it has been imported."""

    def __init__(self, name: str, patch: Callable[[ModuleType], None]) -> None:
        self._name = name
        self._patch = patch

    def find_spec(
        self,
        name: str,
        path: Sequence[str] | None,
        target: ModuleType | None = None,
    ) -> ModuleSpec | None:
        if name != self._name:
            return None
        spec = PathFinder.find_spec(name, path)
        if spec is not None and hasattr(spec.loader, "exec_module"):
            spec.loader = _Loader(spec.loader, self)  # type: ignore[assignment, unused-ignore]
        return spec

    def on_imported(self, module: ModuleType) -> None:
        """Stop finding the module, and patch it."""
        with suppress(ValueError):  # the application may have removed this
            sys.meta_path.remove(self)  # type: ignore[arg-type, unused-ignore]
        self._patch(module)


class _Loader:
    """Imports one module, then has it patched.

    The original loader is not changed, because it may load other modules too
    (a zip archive's does).  The module's __loader__ and spec get that one.
    """

    def __init__(self, loader: Any, finder: _Finder) -> None:
        self._loader = loader
        self._finder = finder

    def __getattr__(self, name: str) -> Any:
        # runpy and pkgutil call optional methods of a loader.
        return getattr(self._loader, name)

    def create_module(self, spec: ModuleSpec) -> ModuleType | None:
        module: ModuleType | None = self._loader.create_module(spec)
        return module

    def exec_module(self, module: ModuleType) -> None:
        spec = module.__spec__
        assert spec is not None
        spec.loader = module.__loader__ = self._loader
        self._loader.exec_module(module)
        self._finder.on_imported(module)


def _when_imported(name: str, patch: Callable[[ModuleType], None]) -> None:
    if name in sys.modules:
        patch(sys.modules[name])
    else:
        sys.meta_path.insert(0, _Finder(name, patch))  # type: ignore[arg-type, unused-ignore]
