"""Reads the files of a program, and applies the rules to all together.

Python files are parsed, files that start programs are read line by line.
Nothing is imported or run.
"""

from __future__ import annotations

import ast
import os
import re
import sys
import warnings
import zipfile
from collections.abc import Iterator
from functools import lru_cache
from importlib.machinery import PathFinder
from pathlib import Path

from .commands import Refused
from .doctor_code import read_tree
from .doctor_names import Names
from .doctor_rules import RULES, Event, Finding, judge
from .doctor_start import START_FILES, read_start

__all__ = ["Program", "read"]

#: Folders of other people's code, of build results and of caches.
_LIBRARY_FOLDERS = {"site-packages", "dist-packages"}
_SKIPPED = _LIBRARY_FOLDERS | {"node_modules", "__pycache__", "build", "dist"}
_TESTS = re.compile(r"(tests?|conftest\.py|test_.*\.py|.*_test\.py)\Z")
_MOST_FILES = 5000
#: What reading or parsing a file may raise.
_UNREAD = (OSError, SyntaxError, ValueError, RecursionError, MemoryError)
#: Modules that keep their meaning if a file of the program has their name.
_LIBRARIES = {"granian", "uvicorn", "uvicorn_worker"} | sys.stdlib_module_names
_LIBRARIES |= {rule.name.partition(".")[0] for rule in RULES}


def read(program: str, outside: list[Event]) -> list[Finding]:
    """Return what is found in a file, a folder or `module:app`.

    outside has the events of environment variables.  Raises Refused if there
    is no such program, no file to read in it, or a file of another kind.
    """
    place = _place(program)
    if place.is_file() and zipfile.is_zipfile(place):
        raise Refused(
            f"{program} is an archive: name the folder that it was made from"
        )
    if place.is_file() and not (_is_python(place) or _starts_programs(place)):
        raise Refused(
            f"{program} is neither a Python file nor a file that starts "
            "programs, such as a Procfile or a shell script"
        )
    found = Program(place)
    if not found.count:
        raise Refused(f"{program} has no file to read")
    findings = found.findings(outside)
    if not findings:
        files = f"{found.count} files of " if found.count > 1 else ""
        if files and place.is_file():
            files = f"{found.count} files, from "
        text = f"{files}{program}: nothing picks another loop"
        findings.append(Finding("ok", text))
    return findings


def _place(program: str) -> Path:
    path = Path(program)
    if path.exists():
        return path
    module = program.partition(":")[0]
    if module.endswith(".py"):
        raise Refused(f"there is no file {program}")
    top = module.partition(".")[0]
    spec = PathFinder.find_spec(top, [os.getcwd(), *sys.path])
    if spec is None:
        raise Refused(f"there is no file, folder or module {program}")
    if spec.submodule_search_locations:
        return Path(next(iter(spec.submodule_search_locations)))
    if not spec.origin or not spec.origin.endswith(".py"):
        raise Refused(f"{program} is not written in Python")
    return Path(spec.origin)


class Program:
    """The files of a program, and what they do.

    count is the number of files that were read.
    """

    def __init__(self, top: Path) -> None:
        self._one_file = top.is_file()
        if self._one_file:
            top = top.absolute()
        self._top = top
        self._folder = _home(top) if self._one_file else top
        self._notes: list[Finding] = []
        self._modules: dict[str, Path | None] = {}
        self._parsed = lru_cache(maxsize=128)(self._parse)
        self.events: list[Event] = []
        self.count = 0
        paths: list[Path] = []
        for path in _files(top):
            if len(paths) == _MOST_FILES:
                text = f"only the first {_MOST_FILES} files of {top} were read"
                self._notes.append(Finding("note", text))
                break
            paths.append(path)
            self._index(path)
        if self._one_file:  # it may import the other files of its folder
            for path in sorted(top.parent.glob("*.py")):
                self._index(path)
        for path in paths:  # those that are added here are read as well
            self._read(path)
            if self._one_file:
                found = self._imports(path)
                paths += [one for one in found if one not in paths]
        self.count = len(paths)

    def findings(self, outside: list[Event]) -> list[Finding]:
        """Return what the rules find, given the environment's events."""
        every = [*outside, *self.events]
        facts = {event.fact() for event in every if not event.in_tests}
        return [*self._notes, *judge(self.events, facts)]

    def _index(self, path: Path) -> None:
        """Record the names under which a file may be imported."""
        if path.suffix != ".py":
            return
        parts = list(path.relative_to(self._folder).with_suffix("").parts)
        if parts[-1] == "__init__":
            parts.pop()
        parts.insert(0, self._folder.resolve().name)
        for start, first in enumerate(parts):
            if first not in _LIBRARIES:
                self._modules.setdefault(".".join(parts[start:]), path)

    def _read(self, path: Path) -> None:
        name = os.path.relpath(path)
        parts = path.relative_to(self._folder).parts
        in_tests = path != self._top and any(map(_TESTS.match, parts))
        try:
            if _is_python(path):
                events = read_tree(*self._parsed(path), path.name)
            else:
                events = read_start(path.read_text("utf-8", "replace"))
        except _UNREAD as exc:
            level = "wrong" if path == self._top else "note"
            reason = getattr(exc, "strerror", None) or str(exc)
            text = f"{name}: not read: {reason or type(exc).__name__}"
            fix = "correct it, or run doctor with the Python that it is for"
            self._notes.append(Finding(level, text, fix))
            return
        for event in events:
            event.place = f"{name}:{event.place}"
            event.in_tests = in_tests
        self.events += events

    def _parse(self, path: Path) -> tuple[ast.Module, Names]:
        with warnings.catch_warnings(action="ignore"):
            tree = ast.parse(path.read_bytes(), str(path))
        if self._one_file and path != self._top:  # it is imported
            tree.body = [one for one in tree.body if not _is_main_part(one)]
        parts = path.relative_to(self._folder).parts[:-1]
        package = ".".join([self._folder.resolve().name, *parts])
        return tree, Names(tree, package, self._names_of)

    def _names_of(self, module: str) -> Names | None:
        """Return the names of one of the program's own modules."""
        path = self._path_of(module)
        return None if path is None else self._names_in(path)

    def _names_in(self, path: Path) -> Names | None:
        try:
            return self._parsed(path)[1]
        except _UNREAD:
            return None  # _read() reports it

    def _imports(self, path: Path) -> list[Path]:
        """Return the program's own files that a file imports."""
        if self._folder.name in _LIBRARY_FOLDERS or not _is_python(path):
            return []
        names = self._names_in(path)
        found: dict[Path | None, None] = {}
        for full in names.imports if names else ():
            parts = full.split(".")
            for end in range(1, len(parts) + 1):  # packages come first
                found[self._path_of(".".join(parts[:end]))] = None
        return [one for one in found if one is not None]

    def _path_of(self, module: str) -> Path | None:
        """Return the file of one of the program's own modules."""
        if module not in self._modules:
            self._modules[module] = self._look_for(module)
        return self._modules[module]

    def _look_for(self, module: str) -> Path | None:
        """Look for a module below the folder of the program's one file."""
        first, _, rest = module.partition(".")
        if not self._one_file or first in _LIBRARIES:
            return None
        inside = rest if first == self._folder.resolve().name else ""
        for name in filter(None, (module, inside)):
            base = str(self._folder.joinpath(*name.split(".")))
            for path in (Path(base, "__init__.py"), Path(f"{base}.py")):
                if path.is_file():
                    return path
        return None


def _home(file: Path) -> Path:
    """Return the folder from which a file's modules are imported."""
    for folder in file.parents:
        if not (folder / "__init__.py").exists():
            return folder
    return file.parent


def _is_main_part(node: ast.stmt) -> bool:
    if not isinstance(node, ast.If):
        return False
    return ast.unparse(node.test) == "__name__ == '__main__'"


def _is_python(path: Path) -> bool:
    return path.suffix == ".py" or "python" in _interpreter(path)


def _starts_programs(path: Path) -> bool:
    return bool(START_FILES.match(path.name)) or "sh" in _interpreter(path)


def _interpreter(path: Path) -> str:
    """Return the first line of a script; "" if the file is none."""
    try:
        with path.open(encoding="utf-8", errors="replace") as file:
            line = file.readline(1000)
    except OSError:
        return ""  # _read() reports it
    return line if line.startswith("#!") else ""


def _files(top: Path) -> Iterator[Path]:
    if top.is_file():
        yield top
        return
    for folder, folders, names in os.walk(top):
        folders[:] = sorted(
            name
            for name in folders
            if name not in _SKIPPED
            and not name.startswith(".")
            and not Path(folder, name, "pyvenv.cfg").exists()
        )
        for name in sorted(names):
            path = Path(folder, name)
            if not path.is_file():
                continue  # to open a named pipe would wait
            script = not path.suffix and (
                _is_python(path) or _starts_programs(path)
            )
            if script or name.endswith(".py") or START_FILES.match(name):
                yield path
