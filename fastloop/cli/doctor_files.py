"""Reads the files of a program, and applies the rules to all together.

Python files are parsed, files that start programs are read line by line.
Nothing is imported or run.
"""

from __future__ import annotations

import ast
import os
import re
import sys
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
_SKIPPED = {"node_modules", "site-packages", "__pycache__", "build", "dist"}
_TESTS = re.compile(r"(tests?|conftest\.py|test_.*\.py|.*_test\.py)\Z")
_MOST_FILES = 5000
#: Modules that keep their meaning if a file of the program has their name.
_LIBRARIES = {"granian", "uvicorn", "uvicorn_worker"} | sys.stdlib_module_names
_LIBRARIES |= {rule.name.partition(".")[0] for rule in RULES}


def read(program: str, outside: list[Event]) -> list[Finding]:
    """Return what is found in a file, a folder or `module:app`.

    outside has the events of environment variables.  Raises Refused if there
    is no such program, or no file to read in it.
    """
    found = Program(_place(program))
    if not found.count:
        raise Refused(f"{program} has no file to read")
    findings = found.findings(outside)
    if not findings:
        files = f"{found.count} files of " if found.count > 1 else ""
        text = f"{files}{program}: nothing picks another loop"
        findings.append(Finding("ok", text))
    return findings


def _place(program: str) -> Path:
    path = Path(program)
    if path.exists():
        return path
    name = program.partition(":")[0].partition(".")[0]
    spec = PathFinder.find_spec(name, [os.getcwd(), *sys.path])
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
        self._top = top
        self._folder = top if top.is_dir() else top.parent
        self._notes: list[Finding] = []
        self._modules: dict[str, Path] = {}
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
        if top.is_file():  # it may import the other files of its folder
            for path in sorted(top.parent.glob("*.py")):
                self._index(path)
        for path in paths:
            self._read(path)
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
        if path.suffix == ".py":
            try:
                tree, names = self._parsed(path)
            except (SyntaxError, ValueError, RecursionError) as exc:
                text = f"{name}: not read: {exc}"
                self._notes.append(Finding("note", text))
                return
            events = read_tree(tree, names, path.name)
        else:
            events = read_start(_text(path))
        for event in events:
            event.place = f"{name}:{event.place}"
            event.in_tests = in_tests
        self.events += events

    def _parse(self, path: Path) -> tuple[ast.Module, Names]:
        tree = ast.parse(_text(path))
        parts = path.relative_to(self._folder).parts[:-1]
        package = ".".join([self._folder.resolve().name, *parts])
        return tree, Names(tree, package, self._names_of)

    def _names_of(self, module: str) -> Names | None:
        """Return the names of one of the program's own modules."""
        path = self._modules.get(module)
        if path is None:
            return None
        try:
            return self._parsed(path)[1]
        except (SyntaxError, ValueError, RecursionError):
            return None  # _read() reports it


def _text(path: Path) -> str:
    return path.read_text(encoding="utf-8", errors="replace")


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
            if name.endswith(".py") or START_FILES.match(name):
                yield Path(folder, name)
