"""Finds what a name in a Python file may stand for, without running it.

Imports, assignments, parameters and other statements bind names, in Python's
scopes.  Nothing is run, so each binding of a name is possible: a name has a
list of possible values.  A value is the full name of an imported object
(`Full`), a constant, or a dict that has a list of values for each key.  A
value that is not known is left out.  A dict has the key REST if it may have
keys that are not known.
"""

from __future__ import annotations

import ast
import builtins
from collections.abc import Callable, Iterable, Iterator
from typing import Any

__all__ = ["REST", "Full", "Names", "Scope", "live"]

_FUNCTIONS = (ast.FunctionDef, ast.AsyncFunctionDef, ast.Lambda)
_NESTED = (*_FUNCTIONS, ast.ClassDef)
#: The longest chain of names that is followed.
_DEEPEST = 12
_IMPORTS = ("importlib.import_module", "__import__")
_VARIABLES = ("os.getenv", "os.environ.get")
#: The key of a dict that stands for keys that are not known.
REST = "**"
#: The keys and values that a statement adds to a dict.
_Pairs = list[tuple[ast.expr | None, ast.expr]]


class Full(str):
    """The full name of an object, such as `uvloop.install`."""

    __slots__ = ()


class Scope:
    """The names that a module, class or function binds.

    names has a list of bindings for each name.  A binding is a `Full`, an
    expression whose values can be found, or None if it is not known.
    """

    def __init__(self, parent: Scope | None, is_class: bool = False) -> None:
        self.parent = parent
        self.is_class = is_class
        self.names: dict[str, list[Full | ast.expr | None]] = {}
        self.stars: list[str] = []

    def bind(self, name: str, to: Full | ast.expr | None) -> None:
        """Add a binding of the name."""
        self.names.setdefault(name, []).append(to)

    def module(self) -> Scope:
        """Return the scope of the module."""
        return self if self.parent is None else self.parent.module()

    def find(self, name: str) -> Scope | None:
        """Return the scope where the name is bound, seen from this one."""
        scope: Scope | None = self
        while scope is not None:
            if name in scope.names and (scope is self or not scope.is_class):
                return scope
            scope = scope.parent
        return None


def live(node: ast.If) -> list[ast.stmt]:
    """Return the statements of an `if` that may run here.

    Left out are those for Windows alone and for type checkers.
    """
    text = ast.unparse(node.test).replace('"', "'")
    windows = (
        "sys.platform == 'win32'",
        "os.name == 'nt'",
        "platform.system() == 'Windows'",
        "sys.platform.startswith('win')",
    )
    if text in windows or text.rpartition(".")[2] == "TYPE_CHECKING":
        return node.orelse
    if text in [part.replace("==", "!=") for part in windows[:3]]:
        return node.body
    return [*node.body, *node.orelse]


class Names:
    """The names of one file.

    package is the dotted name of its folder, for relative imports.
    elsewhere(module) returns the names of another file of the program, or
    None if the program has no such module.
    """

    def __init__(
        self,
        tree: ast.Module,
        package: str = "",
        elsewhere: Callable[[str], Names | None] = lambda name: None,
    ) -> None:
        self._package = package
        self._elsewhere = elsewhere
        self.top = Scope(None)
        #: The full names that the file imports, of modules and in them.
        self.imports: list[str] = []
        self._scopes: dict[ast.AST, Scope] = {}
        #: What statements add to dicts: the dict's name and its user's scope.
        self._added: list[tuple[str, Scope, _Pairs]] = []
        self._known: dict[tuple[Scope, str], list[Any]] = {}
        self._collect(tree.body, self.top)

    def scope_of(self, node: ast.AST) -> Scope:
        """Return the scope that a function or class makes."""
        return self._scopes[node]

    # -- binding --------------------------------------------------------------

    def _collect(self, nodes: Iterable[ast.AST], scope: Scope) -> None:
        """Record the bindings of these nodes, and create their scopes."""
        for node in nodes:
            self._bind(node, scope)
            self._added += [(name, scope, new) for name, new in _added(node)]
            if isinstance(node, _NESTED):
                self._nested(node, scope)
            elif isinstance(node, ast.If):
                self._collect([node.test, *live(node)], scope)
            else:
                self._collect(ast.iter_child_nodes(node), scope)

    def _nested(self, node: Any, scope: Scope) -> None:
        inner = Scope(scope, isinstance(node, ast.ClassDef))
        self._scopes[node] = inner
        if isinstance(node, ast.Lambda):
            outside, body = [], [node.body]
        else:
            outside, body = list(node.decorator_list), node.body
        if isinstance(node, ast.ClassDef):
            outside += [*node.bases, *(word.value for word in node.keywords)]
        else:
            given = node.args
            outside += [*given.defaults, *filter(None, given.kw_defaults)]
            _bind_parameters(given, inner)
        self._collect(outside, scope)
        self._collect(body, inner)

    def _bind(self, node: ast.AST, scope: Scope) -> None:
        match node:
            case ast.Import():
                for item in node.names:
                    self.imports.append(item.name)
                    top = item.name.partition(".")[0]
                    full = Full(item.name if item.asname else top)
                    scope.bind(item.asname or top, full)
            case ast.ImportFrom():
                self._bind_from(node, scope)
            case ast.Assign(targets=targets, value=value):
                for target in targets:
                    if isinstance(target, ast.Name):
                        scope.bind(target.id, value)
            case ast.AnnAssign(target=ast.Name(id=name), value=value):
                scope.bind(name, value)
            case ast.NamedExpr(target=target, value=value):
                scope.bind(target.id, value)
            case ast.Name(id=name, ctx=ast.Store() | ast.Del()):
                scope.names.setdefault(name, [])
            case ast.FunctionDef() | ast.AsyncFunctionDef() | ast.ClassDef():
                scope.bind(node.name, None)
            case ast.ExceptHandler(name=str(name)):
                scope.bind(name, None)
            case ast.MatchAs(name=str(name)) | ast.MatchStar(name=str(name)):
                scope.bind(name, None)
            case ast.Global():
                module = scope.module()
                for name in node.names:
                    scope.names[name] = module.names.setdefault(name, [])

    def _bind_from(self, node: ast.ImportFrom, scope: Scope) -> None:
        module = node.module or ""
        if node.level:
            parts = self._package.split(".") if self._package else []
            kept = parts[: len(parts) - node.level + 1]
            module = ".".join([*kept, *filter(None, [module])])
        for item in node.names:
            self.imports.append(f"{module}.{item.name}".lstrip("."))
            if item.name == "*":
                scope.module().stars.append(module)
            else:
                full = f"{module}.{item.name}" if module else item.name
                scope.bind(item.asname or item.name, Full(full))

    # -- values ---------------------------------------------------------------

    def values(
        self, node: ast.AST | None, scope: Scope, depth: int = 0
    ) -> list[Any]:
        """Return all known values that an expression may have."""
        if depth > _DEEPEST:
            return []
        deeper = depth + 1
        match node:
            case ast.Constant(value=value):
                return [value]
            case ast.Dict():
                pairs = zip(node.keys, node.values, strict=True)
                return [self._dict(pairs, scope, deeper)]
            case ast.Name(id=name):
                return self._named(name, scope, deeper)
            case ast.Attribute(value=value, attr=attr):
                return self._attributes(value, attr, scope, deeper)
            case ast.Call():
                return list(self._called(node, scope, deeper))
            case ast.BinOp(left=left, op=ast.BitOr(), right=right):
                both = self._dict([(None, left), (None, right)], scope, deeper)
                return [] if both == {REST: []} else [both]
            case ast.IfExp(body=body, orelse=orelse):
                parts = [body, orelse]
            case ast.BoolOp(values=parts):
                pass
            case ast.NamedExpr(value=value) | ast.Await(value=value):
                parts = [value]
            case _:
                return []
        return [
            one for part in parts for one in self.values(part, scope, deeper)
        ]

    def full_names(self, node: ast.AST | None, scope: Scope) -> list[Full]:
        """Return the full names among the values of an expression."""
        found = self.values(node, scope)
        return [one for one in found if isinstance(one, Full)]

    def _named(self, name: str, scope: Scope, depth: int) -> list[Any]:
        """Return the values of a name; each name is looked up once.

        A binding to an expression of the name itself adds no value.
        """
        key = (scope.find(name) or scope, name)
        if key not in self._known:
            self._known[key] = []
            self._known[key] += self._bound(name, key[0], depth)
        return self._known[key]

    def _bound(self, name: str, home: Scope, depth: int) -> list[Any]:
        found: list[Any] = []
        if name not in home.names:
            found += [Full(name)] if hasattr(builtins, name) else []
            for module in self.top.stars:
                found += self._expanded(Full(f"{module}.{name}"), depth)
        for bound in home.names.get(name, ()):
            if isinstance(bound, Full):
                new = self._expanded(bound, depth)
            else:
                new = self.values(bound, home, depth)
            found += [one for one in new if one not in found]
        if any(isinstance(one, dict) for one in found):
            added = [
                self._dict(pairs, scope, depth)
                for other, scope, pairs in self._added
                if other == name and scope.find(name) is home
            ]
            found = [_joined(one, added) for one in found]
        return found

    def _expanded(self, full: Full, depth: int) -> list[Any]:
        """Follow a name into another file of the program."""
        if depth > _DEEPEST:
            return []
        module, _, name = full.rpartition(".")
        there = self._elsewhere(module) if module else None
        if there is None or self._elsewhere(full) is not None:
            return [full]
        if name not in there.top.names and not there.top.stars:
            return []
        return there._named(name, there.top, depth + 1)

    def _attributes(
        self, value: ast.expr, attr: str, scope: Scope, depth: int
    ) -> list[Any]:
        found = []
        for one in self.values(value, scope, depth):
            if isinstance(one, Full):
                found += self._expanded(Full(f"{one}.{attr}"), depth)
        return found

    def _dict(
        self,
        pairs: Iterable[tuple[Any, ast.expr]],
        scope: Scope,
        depth: int,
    ) -> dict[str, list[Any]]:
        """Return the values of each key; those of `**other` as well."""
        found: dict[str, list[Any]] = {}
        for key, value in pairs:
            values = self.values(value, scope, depth)
            dicts = [one for one in values if isinstance(one, dict)]
            texts = [*filter(_is_text, self.values(key, scope, depth))]
            if key is None:
                for other in dicts:
                    found |= other
            for text in texts:
                found[text] = values
            if not (dicts if key is None else texts):
                found[REST] = []
        return found

    def _called(
        self, node: ast.Call, scope: Scope, depth: int
    ) -> Iterator[Any]:
        """Yield the values that a call may return.

        Calls that import, read an environment variable or an attribute, or
        make a dict or a partial are followed.  Any other call gives its name
        with ().
        """
        first, second, *_ = *node.args, None, None
        for full in self.values(node.func, scope, depth):
            if not isinstance(full, Full):
                continue
            if full in _IMPORTS:
                for text in filter(_is_text, self.values(first, scope, depth)):
                    yield Full(text)
            elif full == "functools.partial":
                yield from self.values(first, scope, depth)
            elif full in _VARIABLES:
                yield from self.values(second, scope, depth)
            elif full == "getattr" and first is not None:
                for text in filter(
                    _is_text, self.values(second, scope, depth)
                ):
                    yield from self._attributes(first, text, scope, depth)
            elif full == "dict":
                pairs: _Pairs = [(None, arg) for arg in node.args]
                pairs += _keyword_pairs(node.keywords)
                yield self._dict(pairs, scope, depth)
            else:
                yield Full(f"{full}()")


def _is_text(value: object) -> bool:
    return isinstance(value, str)


def _added(node: ast.AST) -> Iterator[tuple[str, _Pairs]]:
    """Yield the name of each dict that a statement changes, and the pairs."""
    match node:
        case ast.Assign(targets=targets, value=value):
            for target in targets:
                match target:
                    case ast.Subscript(value=ast.Name(id=name), slice=key):
                        yield name, [(key, value)]
        case ast.AugAssign(
            target=ast.Name(id=name), op=ast.BitOr(), value=value
        ):
            yield name, [(None, value)]
        case ast.Call(
            func=ast.Attribute(value=ast.Name(id=name), attr="setdefault"),
            args=[key, value],
        ):
            yield name, [(key, value)]
        case ast.Call(
            func=ast.Attribute(value=ast.Name(id=name), attr="update"),
            args=args,
            keywords=words,
        ):
            others: _Pairs = [(None, arg) for arg in args]
            yield name, [*others, *_keyword_pairs(words)]


def _keyword_pairs(words: list[ast.keyword]) -> _Pairs:
    return [
        (ast.Constant(word.arg) if word.arg else None, word.value)
        for word in words
    ]


def _joined(value: Any, added: list[dict[str, list[Any]]]) -> Any:
    """Return a dict with all that may be added to it."""
    if not isinstance(value, dict):
        return value
    found = dict(value)
    for new in added:
        for key, values in new.items():
            found[key] = [*found.get(key, ()), *values]
    return found


def _bind_parameters(given: ast.arguments, scope: Scope) -> None:
    """Bind parameters to their defaults; a caller's value is unknown."""
    every = [*given.posonlyargs, *given.args]
    for word in every:
        scope.bind(word.arg, None)
    count = len(given.defaults)
    for word, default in zip(every[-count:], given.defaults, strict=False):
        scope.bind(word.arg, default)
    for word, maybe in zip(given.kwonlyargs, given.kw_defaults, strict=True):
        scope.bind(word.arg, maybe)
    for rest in filter(None, (given.vararg, given.kwarg)):
        scope.bind(rest.arg, None)
