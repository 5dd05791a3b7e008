"""fastloop/_core.pyi says what the built module has: names, signatures."""

import ast
import importlib
import inspect
import sys

import pytest

from .conftest import TOP

STUB = TOP / "fastloop" / "_core.pyi"


def public(names):
    return {name for name in names if not name.startswith("_")}


def of_this_version(body):
    """The statements that hold here: `if sys.version_info >= ...` is one."""
    for node in body:
        if isinstance(node, ast.If):
            test = eval(ast.unparse(node.test), {"sys": sys})
            yield from of_this_version(node.body if test else node.orelse)
        else:
            yield node


def stub_body(name=""):
    """The stub's definitions by name, of the module or of one class."""
    body = ast.parse(STUB.read_text(encoding="utf-8")).body
    if name:
        body = next(
            n.body
            for n in body
            if isinstance(n, ast.ClassDef) and n.name == name
        )
    found = {}
    for node in of_this_version(body):
        if isinstance(
            node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef
        ):
            found[node.name] = node
        elif isinstance(node, ast.AnnAssign):
            found[node.target.id] = node
    return found


def stub_parameters(node):
    """(name, kind, has a default) of each parameter, without self."""
    arguments = node.args
    kinds = inspect.Parameter
    positional = [*arguments.posonlyargs, *arguments.args]
    first_default = len(positional) - len(arguments.defaults)
    rows = []
    for number, arg in enumerate(positional):
        kind = (
            kinds.POSITIONAL_ONLY
            if number < len(arguments.posonlyargs)
            else kinds.POSITIONAL_OR_KEYWORD
        )
        rows.append((arg.arg, kind, number >= first_default))
    if arguments.vararg:
        rows.append((arguments.vararg.arg, kinds.VAR_POSITIONAL, False))
    for arg, default in zip(
        arguments.kwonlyargs, arguments.kw_defaults, strict=True
    ):
        rows.append((arg.arg, kinds.KEYWORD_ONLY, default is not None))
    if arguments.kwarg:
        rows.append((arguments.kwarg.arg, kinds.VAR_KEYWORD, False))
    return [row for row in rows if row[0] not in ("self", "cls")]


def built_parameters(function):
    rows = [
        (p.name, p.kind, p.default is not p.empty)
        for p in inspect.signature(function).parameters.values()
    ]
    return [row for row in rows if row[0] not in ("self", "cls")]


@pytest.fixture
def core(built):
    return importlib.import_module("fastloop._core")


def test_names_of_the_module(core):
    assert public(vars(core)) == public(stub_body())


def classes(core):
    return [
        name
        for name, node in stub_body().items()
        if isinstance(node, ast.ClassDef) and not name.startswith("_")
    ]


def test_names_of_classes(core):
    for name in classes(core):
        built_names = public(vars(getattr(core, name)))
        assert built_names == public(stub_body(name)), name


def hidden(names):
    return {n for n in names if n.startswith("_") and n[:2] != "__"}


def test_private_names(core):
    """fastloop's own Python uses them, and is checked against the stub."""
    functions = {n for n in hidden(vars(core)) if callable(getattr(core, n))}
    assert functions <= set(stub_body())
    for name in classes(core):
        found = hidden(vars(getattr(core, name)))
        assert found == hidden(stub_body(name)), name


def test_signatures(core):
    wrong = []
    places = [("", core)]
    places += [(name, getattr(core, name)) for name in classes(core)]
    for name, owner in places:
        for key, node in stub_body(name).items():
            if not isinstance(node, ast.FunctionDef) or key.startswith("_"):
                continue
            member = getattr(owner, key)
            if not callable(member):
                continue
            try:
                found = built_parameters(member)
            except ValueError:
                wrong.append(f"{name}.{key} has no __text_signature__")
                continue
            if found != stub_parameters(node):
                wrong.append(f"{name}.{key}{inspect.signature(member)}")
    assert not wrong, "these differ from the stub"
