"""Finds calls and settings in Python files that `doctor` has rules about.

The files are parsed, not run.  `from uvloop import install as go; go()` is a
call of uvloop.install, and a local variable with the name uvloop is not
uvloop.
"""

from __future__ import annotations

import ast
import builtins
from collections.abc import Iterable, Iterator
from typing import Any

from .doctor_names import REST, Full, Names, live
from .doctor_rules import SETTINGS, UNKNOWN, Event, is_known
from .doctor_start import read_command

__all__ = ["read_tree"]

#: Calls that start a server: the setting, and the keyword that has its value.
_SERVERS = {
    "granian.Granian": "granian.loop",
    "granian.server.Granian": "granian.loop",
    "uvicorn.Config": "uvicorn.loop",
    "uvicorn.config.Config": "uvicorn.loop",
    "uvicorn.main.run": "uvicorn.loop",
    "uvicorn.run": "uvicorn.loop",
}
_CONFIGS = ("uvicorn.Config(", "uvicorn.config.Config(")
_DEFAULT_CONFIGS = tuple(f"{config})" for config in _CONFIGS)
#: Settings of gunicorn.  It reads them from its own configuration file.
_GUNICORNS = ("asgi_loop", "worker_class")
#: Servers whose worker_class may be a bare word, such as gevent.
_WORKER_SERVERS = ("gunicorn", "hypercorn")
_WORKERS = ("uvicorn.workers.UvicornWorker", "uvicorn_worker.UvicornWorker")
#: Beginnings of the names of calls that call none of their arguments.
_SILENT = (
    "functools.partial",
    "typing.",
    "typing_extensions.",
    "unittest.mock.",
)
#: Beginnings of the names of calls that start processes.
_STARTS = (
    "asyncio.create_subprocess_",
    "os.exec",
    "os.popen",
    "os.spawn",
    "os.system",
    "subprocess.",
)


def read_tree(tree: ast.Module, names: Names, file: str) -> list[Event]:
    """Return the events of a file, in the order of its lines.

    file is its name, without folders: a rule may not apply if
    `python -m fastloop run` starts that file.
    """
    reader = _Reader(names, file)
    reader.visit(tree)
    needed = set(_needed(tree.body))
    for event in reader.found:
        event.may_do_without = event.name.partition(".")[0] not in needed
    serves = ".serve()" in reader.methods and not reader.runs_server
    return [
        event
        for event in reader.found
        # Only Server.run() creates the loop of uvicorn's Config.
        if not (serves and event.subject.startswith(_CONFIGS))
        # A loop that is assigned later takes the place of the default.
        and not (reader.sets_loop and event.subject in _DEFAULT_CONFIGS)
    ]


def _needed(body: Iterable[ast.stmt]) -> Iterator[str]:
    """Yield the packages whose imports stand in no try, if or with."""
    for node in body:
        match node:
            case ast.Import():
                yield from (name.name.partition(".")[0] for name in node.names)
            case ast.ImportFrom(module=str(module), level=0):
                yield module.partition(".")[0]
            case ast.FunctionDef() | ast.AsyncFunctionDef() | ast.ClassDef():
                yield from _needed(node.body)


def _shown(value: object) -> str:
    if value is UNKNOWN:
        return "..."
    if isinstance(value, str) and not isinstance(value, Full):
        return f'"{value}"'
    return str(value)


def _loops(found: list[Any]) -> list[Any]:
    """Return what `loop` may be, given the possible dicts of options.

    The list is empty if the options are known and loop is not among them.
    """
    dicts = [one for one in found if isinstance(one, dict)]
    loops: list[Any] = [] if dicts else [UNKNOWN]
    for one in dicts:
        if "loop" in one:
            loops += one["loop"] or [UNKNOWN]
        elif REST in one:
            loops.append(UNKNOWN)
    return loops


class _Reader(ast.NodeVisitor):
    def __init__(self, names: Names, file: str) -> None:
        self.found: list[Event] = []
        self.methods: set[str] = set()
        self.runs_server = False
        self.sets_loop = False
        self._names = names
        self._file = file
        self._scope = names.top
        imported = {full.partition(".")[0] for full in names.imports}
        #: Whether the file is about a server with worker classes.
        self._has_workers = any(
            server in imported or server in file for server in _WORKER_SERVERS
        )

    def _add(
        self,
        node: ast.AST,
        name: str,
        value: object,
        subject: str,
        form: str = "{}",
    ) -> None:
        if not is_known(name):
            return
        line = str(getattr(node, "lineno", 0))
        by = "gunicorn" if name in _GUNICORNS else self._file
        event = Event(name, str(value), subject, form, by, line)
        self.found.append(event)

    # -- scopes ---------------------------------------------------------------

    def _enter(self, node: Any, outside: Iterable[ast.AST | None]) -> None:
        """Visit nodes of the outer scope, then the body in its own scope."""
        for part in outside:
            if part is not None:
                self.visit(part)
        before, self._scope = self._scope, self._names.scope_of(node)
        body = node.body if isinstance(node.body, list) else [node.body]
        for part in body:
            self.visit(part)
        self._scope = before

    def visit_FunctionDef(self, node: Any) -> None:  # noqa: N802
        """Read a function in its own scope."""
        outside = [*node.decorator_list, *node.args.defaults]
        self._enter(node, [*outside, *node.args.kw_defaults])

    visit_AsyncFunctionDef = visit_FunctionDef  # noqa: N815

    def visit_Lambda(self, node: ast.Lambda) -> None:  # noqa: N802
        """Read a lambda in its own scope."""
        given = node.args
        self._enter(node, [*given.defaults, *given.kw_defaults])

    def visit_ClassDef(self, node: ast.ClassDef) -> None:  # noqa: N802
        """Read a class; a subclass of a loop counts as a use of the loop."""
        for base in node.bases:
            for full in self._full_names(base):
                self._add(node, f"{full}()", "", f"class {node.name}({full})")
                if full in _WORKERS:
                    self._worker(node, full)
        self._enter(node, [*node.decorator_list, *node.bases])

    def visit_If(self, node: ast.If) -> None:  # noqa: N802
        """Read the branches that may run here."""
        self.visit(node.test)
        for part in live(node):
            self.visit(part)

    # -- what is read ---------------------------------------------------------

    def _values(self, node: ast.AST | None) -> list[Any]:
        return self._names.values(node, self._scope)

    def _full_names(self, node: ast.AST | None) -> list[Full]:
        return self._names.full_names(node, self._scope)

    def visit_Import(self, node: ast.Import) -> None:  # noqa: N802
        """Note the packages that are imported."""
        for item in node.names:
            self._import(node, item.name)

    def visit_ImportFrom(self, node: ast.ImportFrom) -> None:  # noqa: N802
        """Note the package that is imported."""
        if not node.level:
            self._import(node, node.module or "")

    def _import(self, node: ast.stmt, module: str) -> None:
        package = module.partition(".")[0]
        self._add(node, f"import {package}", "", f"import {package}")

    def visit_Call(self, node: ast.Call) -> None:  # noqa: N802
        """Read a call and its arguments."""
        if isinstance(node.func, ast.Attribute):
            self.methods.add(f".{node.func.attr}()")
            self._set(node, node.func.attr)
        for full in dict.fromkeys(self._full_names(node.func)):
            self._call(node, full)
        for keyword in node.keywords:
            self._setting(node, keyword.arg or "", keyword.value, "{}={}")
        self._passed(node)
        self.generic_visit(node)

    def _passed(self, node: ast.Call) -> None:
        """Read what a function gets, unless it is known to call nothing."""
        for full in self._full_names(node.func):
            silent = full.startswith(_SILENT) or hasattr(builtins, full)
            if silent:
                return
        for value in node.args:
            self._reference(node, "", value)
        for keyword in node.keywords:
            self._reference(node, keyword.arg or "", keyword.value)

    def _reference(self, node: ast.AST, name: str, value: ast.expr) -> None:
        """Read a loop that is kept or passed on under a name, not called.

        A loop_factory has rules of its own.
        """
        if name != "loop_factory":
            for full in dict.fromkeys(self._full_names(value)):
                self._add(node, f"reference {full}", "", full)

    def visit_Return(self, node: ast.Return) -> None:  # noqa: N802
        """Read what a function returns."""
        if node.value is not None:
            self._reference(node, "", node.value)
        self.generic_visit(node)

    def _call(self, node: ast.Call, full: Full) -> None:
        self.runs_server |= full == "uvicorn.Server().run"
        name = f"{full}()"
        if full == "isinstance" and len(node.args) == 2:
            self._isinstance(node)
        elif full == "granian.loops.register" and node.args:
            for value in self._values(node.args[0]):
                self._add(node, name, value, name)
        elif full.startswith(_STARTS):
            self._start(node)
        else:
            self._add(node, name, "", name)
        if full in _SERVERS:
            self._server(node, full)

    def _set(self, node: ast.Call, method: str) -> None:
        """Read `set(name, value)`, as gunicorn's own applications have it."""
        match node.args:
            case [ast.Constant(value=str(name)), value] if method == "set":
                self._setting(node, name, value, '"{}", {}')

    def _isinstance(self, node: ast.Call) -> None:
        kinds = node.args[1]
        for kind in kinds.elts if isinstance(kinds, ast.Tuple) else [kinds]:
            for full in self._full_names(kind):
                subject = f"isinstance(..., {full})"
                self._add(node, "isinstance()", full, subject)

    def _start(self, node: ast.Call) -> None:
        """Read the command of a process that is started."""
        words = [
            part.value
            for word in node.args
            for part in ast.walk(word)
            if isinstance(part, ast.Constant) and isinstance(part.value, str)
        ]
        for event in read_command(" ".join(words)):
            event.place = str(node.lineno)
            self.found.append(event)

    def _server(self, node: ast.Call, full: Full) -> None:
        values: list[Any] = ["auto"]
        written = False
        for keyword in node.keywords:
            found = self._values(keyword.value)
            if keyword.arg == "loop":
                values, written = found or [UNKNOWN], True
            elif keyword.arg is None and (given := _loops(found)):
                values, written = given, True
        self._loop(node, full, values, written)

    def _loop(
        self, node: ast.AST, full: Full, values: list[Any], written: bool
    ) -> None:
        for value in values:
            text = f"loop={_shown(value)}" if written else ""
            last = value.rpartition(".")[2] if isinstance(value, Full) else ""
            subject = f"{full}({text})"
            self._add(
                node, _SERVERS[full], last or value, subject, 'loop="{}"'
            )

    def _worker(self, node: ast.ClassDef, base: Full) -> None:
        """Read a subclass of uvicorn's worker, which names its loop."""
        scope = self._names.scope_of(node)
        bound = scope.names.get("CONFIG_KWARGS", [])
        given = [
            one
            for value in bound
            for one in self._names.values(value, scope)  # type: ignore[arg-type]
        ]
        loops = _loops(given) if bound else []
        for value in loops or ["auto"]:
            subject = f"class {node.name}({base})"
            if loops:
                subject += f" with loop {_shown(value)}"
            form = 'CONFIG_KWARGS = {"loop": "{}", "http": "auto"}'
            self._add(node, "uvicorn.loop", value, subject, form)

    def visit_Assign(self, node: ast.Assign) -> None:  # noqa: N802
        """Read settings that are variables, attributes or items."""
        for target in node.targets:
            self._target(node, target, node.value)
        self.generic_visit(node)

    def visit_AnnAssign(self, node: ast.AnnAssign) -> None:  # noqa: N802
        """Read the setting of a class, or of a module."""
        if node.value is not None:
            self._target(node, node.target, node.value)
        self.generic_visit(node)

    def _target(
        self, node: ast.stmt, target: ast.expr, value: ast.expr
    ) -> None:
        match target:
            case ast.Name(id=name):
                if self._scope.is_class or self._scope is self._names.top:
                    self._setting(node, name, value, "{} = {}")
                if self._scope.is_class:
                    self._reference(node, name, value)
            case ast.Attribute(value=config, attr="loop"):
                self._loop_of(node, config, value)
            case ast.Attribute(attr=name):
                self._setting(node, name, value, "{} = {}")
                self._reference(node, name, value)
            case ast.Subscript(slice=ast.Constant(value=str(name))):
                self._setting(node, name, value, '["{}"] = {}')
                self._reference(node, name, value)
            case ast.Subscript():
                self._reference(node, "", value)

    def _loop_of(
        self, node: ast.stmt, config: ast.expr, value: ast.expr
    ) -> None:
        """Read a loop that is assigned to uvicorn's Config.

        An object that is not known may be one if its loop is a text.
        """
        fulls = self._full_names(config)
        values = self._values(value)
        configs = [full for full in fulls if full in _DEFAULT_CONFIGS]
        for full in configs:
            name = Full(full.removesuffix("()"))
            self._loop(node, name, values or [UNKNOWN], True)
        is_text = any(type(one) is str for one in values)
        self.sets_loop |= bool(configs) or (not fulls and is_text)

    def visit_Dict(self, node: ast.Dict) -> None:  # noqa: N802
        """Read settings that are items of a dict."""
        for key, value in zip(node.keys, node.values, strict=True):
            names = [one for one in self._values(key) if isinstance(one, str)]
            for name in names:
                self._setting(node, name, value, '"{}": {}')
            if key is not None:
                self._reference(value, (names or [""])[0], value)
        self.generic_visit(node)

    def _setting(
        self, node: ast.AST, name: str, value: ast.expr, form: str
    ) -> None:
        if name == "loop_factory":
            for full in self._full_names(value):
                self._add(node, f"{full}()", "", full)
        if name not in SETTINGS:
            return
        for found in self._values(value) or [UNKNOWN]:
            if name == "worker_class" and not self._is_worker(node, found):
                continue
            subject = form.format(name, _shown(found))
            instead = {"use_uvloop": "loop_factory"}.get(name, name)
            quoted = '"{}"' if isinstance(found, str) else "{}"
            fix = form.format(instead, quoted)
            self._add(node, name, found, subject, fix)

    def _is_worker(self, node: ast.AST, value: object) -> bool:
        """Whether the value of a worker_class is a server's worker.

        A full name says so itself.  A bare word may be anything, except in
        the files of these servers.  gunicorn's file has any name and assigns
        variables.
        """
        targets = getattr(node, "targets", [getattr(node, "target", None)])
        is_variable = self._scope is self._names.top and any(
            isinstance(target, ast.Name) for target in targets
        )
        full = isinstance(value, str) and "." in value
        return (
            full or self._has_workers or (is_variable and value is not UNKNOWN)
        )
