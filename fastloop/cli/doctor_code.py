"""Finds code that clashes with fastloop or picks another loop.

Python files are parsed, not run, and names are followed through their
imports: `from uvloop import install as go; go()` is found.  In files that
start programs (Procfile, Dockerfile, scripts) the option `--loop` is looked
for.
"""

from __future__ import annotations

import ast
import os
import re
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from .commands import Refused

__all__ = ["Finding", "read", "read_python", "read_start"]

_MARKS = {"ok": "ok   ", "note": "note ", "wrong": "WRONG"}
#: Folders that hold other people's code, or none.
_SKIPPED = {"node_modules", "site-packages", "__pycache__", "build", "dist"}
_START_FILES = re.compile(
    r"(Dockerfile.*|Procfile|.*\.(sh|ya?ml|toml|ini|cfg|service))\Z"
)
_LOOP_OPTION = re.compile(
    r"""--loop(?:=|\s+|["'],\s*["'])(uvloop|asyncio|auto|rloop)\b"""
)
_MOST_FILES = 5000

_NEW_LOOP = "fastloop.run(main()) or loop_factory=fastloop.new_event_loop"
_POLICY = f"no policy: {_NEW_LOOP}"
_CLASS = f"{_NEW_LOOP}, or no factory at all and `python -m fastloop run`"
_NESTING = (
    "replaces parts of asyncio's own loop, which fastloop refuses",
    "await instead of running a loop inside a loop; in a notebook use "
    "top-level await",
)

#: Calls by their full name: what they do, and the fix.
_CALLS = {
    "nest_asyncio.apply": _NESTING,
    "nest_asyncio2.apply": _NESTING,
    "gevent.monkey.patch_all": (
        "replaces the system calls of asyncio's loops; fastloop refuses that",
        "run gevent's part in a process of its own",
    ),
    "uvloop.install": ("picks uvloop", _NEW_LOOP),
    "uvloop.run": ("picks uvloop", "fastloop.run"),
    "uvloop.new_event_loop": ("picks uvloop", "fastloop.new_event_loop"),
    "uvloop.Loop": ("picks uvloop", "fastloop.new_event_loop"),
    "uvloop.EventLoopPolicy": ("picks uvloop", _POLICY),
    "asyncio.SelectorEventLoop": ("picks asyncio's own loop", _CLASS),
}
_POLICIES = {
    "asyncio.set_event_loop_policy",
    "fastloop.install",
    "fastloop.EventLoopPolicy",
    "asyncio.DefaultEventLoopPolicy",
}
_SERVERS = ("uvicorn.run", "uvicorn.Config", "granian.Granian")


@dataclass
class Finding:
    """One result of a check; level is ok, note or wrong."""

    level: str
    what: str
    fix: str = ""

    def lines(self) -> str:
        """Return it as text; the fix has a line of its own."""
        fix = f"\n        fix: {self.fix}" if self.fix else ""
        return f"{_MARKS[self.level]}  {self.what}{fix}"


def read(program: str) -> list[Finding]:
    """Return what is found in a file, a folder or `module:app`.

    Raises Refused if there is no such thing.
    """
    top = _place(program)
    found: list[Finding] = []
    count = 0
    for path in _files(top):
        count += 1
        if count > _MOST_FILES:
            text = f"only the first {_MOST_FILES} files of {program} were read"
            found.append(Finding("note", text))
            break
        text = path.read_text(encoding="utf-8", errors="replace")
        name = os.path.relpath(path)
        if path.suffix == ".py":
            found += read_python(text, name)
        else:
            found += read_start(text, name)
    if not count:
        raise Refused(f"{program} has no Python file")
    if not found:
        files = f"{min(count, _MOST_FILES)} files of " if count > 1 else ""
        text = f"{files}{program}: nothing picks another loop"
        return [Finding("ok", text)]
    return found


def _place(program: str) -> Path:
    path = Path(program)
    if path.exists():
        return path
    from importlib.machinery import PathFinder

    name = program.partition(":")[0].partition(".")[0]
    spec = PathFinder.find_spec(name, [os.getcwd(), *sys.path])
    if spec is None:
        raise Refused(f"there is no file, folder or module {program}")
    if spec.submodule_search_locations:
        return Path(next(iter(spec.submodule_search_locations)))
    if not spec.origin or not spec.origin.endswith(".py"):
        raise Refused(f"{program} is not written in Python")
    return Path(spec.origin)


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
            if name.endswith(".py") or _START_FILES.match(name):
                yield Path(folder, name)


def read_start(text: str, name: str) -> list[Finding]:
    """Return where a file that starts programs names another loop."""
    return [
        Finding(
            "wrong",
            f"{name}:{number}: --loop {match[1]} names another loop",
            "--loop fastloop:new_event_loop (uvicorn); granian has no such "
            "option: python -m fastloop run -m granian --loop asyncio",
        )
        for number, line in enumerate(text.splitlines(), 1)
        for match in _LOOP_OPTION.finditer(line)
        if not line.lstrip().startswith("#")
    ]


def read_python(text: str, name: str) -> list[Finding]:
    """Return what a Python file does that clashes or picks a loop."""
    try:
        tree = ast.parse(text)
    except (SyntaxError, ValueError) as exc:
        return [Finding("note", f"{name}: not read: {exc}")]
    reader = _Reader(name)
    reader.visit(tree)
    return reader.found


class _Reader(ast.NodeVisitor):
    def __init__(self, name: str) -> None:
        self.found: list[Finding] = []
        self._name = name
        self._names: dict[str, str] = {}

    def _add(self, node: ast.AST, level: str, what: str, fix: str) -> None:
        line = getattr(node, "lineno", 0)
        self.found.append(Finding(level, f"{self._name}:{line}: {what}", fix))

    def _full(self, node: ast.AST) -> str:
        """Return the dotted name that a name stands for."""
        if isinstance(node, ast.Attribute):
            return f"{self._full(node.value)}.{node.attr}"
        if isinstance(node, ast.Name):
            return self._names.get(node.id, node.id)
        return ""

    def visit_Import(self, node: ast.Import) -> None:  # noqa: N802
        """Note the names that an import binds."""
        for item in node.names:
            top = item.name.partition(".")[0]
            self._names[item.asname or top] = item.name if item.asname else top

    def visit_ImportFrom(self, node: ast.ImportFrom) -> None:  # noqa: N802
        """Note the names that an import binds."""
        for item in node.names:
            full = f"{node.module or ''}.{item.name}"
            self._names[item.asname or item.name] = full

    def visit_Call(self, node: ast.Call) -> None:  # noqa: N802
        """Check a call and its arguments."""
        name = self._full(node.func)
        if name in _CALLS:
            does, fix = _CALLS[name]
            self._add(node, "wrong", f"{name}() {does}", fix)
        elif name in _POLICIES:
            self._policy(node, name)
        elif name == "isinstance" and len(node.args) == 2:
            self._isinstance(node)
        for keyword in node.keywords:
            self._keyword(node, name, keyword)
        if name == "dask.config.set":
            self._dask(node)
        self.generic_visit(node)

    def _policy(self, node: ast.Call, name: str) -> None:
        if sys.version_info >= (3, 16):
            self._add(
                node, "wrong", f"{name}() is not in Python 3.16", _POLICY
            )
        elif sys.version_info >= (3, 14):
            text = f"{name}() warns from Python 3.14 on and goes in 3.16"
            self._add(node, "note", text, _POLICY)
        elif name.startswith("asyncio."):
            text = f"{name}() may pick another loop; it goes in Python 3.16"
            self._add(node, "note", text, _POLICY)

    def _isinstance(self, node: ast.Call) -> None:
        kinds = node.args[1]
        each = kinds.elts if isinstance(kinds, ast.Tuple) else [kinds]
        if any(self._full(kind) == "uvloop.Loop" for kind in each):
            text = "isinstance(..., uvloop.Loop) is false on fastloop"
            fix = "ask for what the code needs, or for fastloop.Loop as well"
            self._add(node, "wrong", text, fix)

    def _keyword(
        self, node: ast.Call, name: str, keyword: ast.keyword
    ) -> None:
        literal = _literal(keyword.value)
        full = self._full(keyword.value)
        if keyword.arg == "loop" and name in _SERVERS:
            if literal in ("uvloop", "asyncio", "rloop"):
                text = f'{name}(loop="{literal}") names another loop'
                fix = 'loop="fastloop:new_event_loop" (uvicorn)'
                self._add(node, "wrong", text, fix)
        elif keyword.arg == "loop_factory" and full in _CALLS:
            does, fix = _CALLS[full]
            self._add(node, "wrong", f"{full} {does}", fix)
        elif keyword.arg == "use_uvloop" and literal is True:
            text = "use_uvloop=True picks uvloop"
            self._add(node, "wrong", text, "leave it out")

    def _dask(self, node: ast.Call) -> None:
        items = (
            (_literal(key), _literal(value))
            for part in ast.walk(node)
            if isinstance(part, ast.Dict)
            for key, value in zip(part.keys, part.values, strict=True)
        )
        if ("distributed.admin.event-loop", "uvloop") in items:
            fix = "leave it at asyncio, and start Dask by "
            fix += "`python -m fastloop run -m`"
            self._add(node, "wrong", "Dask is told to use uvloop", fix)

    def visit_Assign(self, node: ast.Assign) -> None:  # noqa: N802
        """Check Sanic's setting."""
        for target in node.targets:
            if (
                isinstance(target, ast.Attribute)
                and target.attr == "USE_UVLOOP"
                and _literal(node.value) is True
            ):
                text = "USE_UVLOOP picks uvloop"
                self._add(node, "wrong", text, "set it to False")
        self.generic_visit(node)


def _literal(node: ast.AST | None) -> object:
    """Return the value of a constant, or None."""
    return node.value if isinstance(node, ast.Constant) else None
