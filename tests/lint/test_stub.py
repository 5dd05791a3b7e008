"""What mypy's stubtest does not ask of fastloop/_core.pyi.

It leaves out a member whose signature the built module does not give, and
private names that the stub does not have: fastloop's own Python uses those,
and is checked against the stub.
"""

import ast
import importlib
import inspect
import sys

import pytest

from .conftest import TOP

STUB = TOP / "fastloop" / "_core.pyi"


def of_this_version(body):
    """The statements that hold here: `if sys.version_info >= ...` is one."""
    for node in body:
        if isinstance(node, ast.If):
            test = eval(ast.unparse(node.test), {"sys": sys})
            yield from of_this_version(node.body if test else node.orelse)
        else:
            yield node


def defined(body):
    """The definitions in a stub's BODY by name."""
    found = {}
    for node in of_this_version(body):
        if isinstance(
            node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef
        ):
            found[node.name] = node
        elif isinstance(node, ast.AnnAssign):
            found[node.target.id] = node
    return found


@pytest.fixture(scope="module")
def owners(built):
    """(name, built object, its definitions) of the module and each class."""
    core = importlib.import_module("fastloop._core")
    importlib.import_module("fastloop._tls")  # sets an attribute
    stub = defined(ast.parse(STUB.read_text(encoding="utf-8")).body)
    classes = [
        (name, getattr(core, name), defined(node.body))
        for name, node in stub.items()
        if isinstance(node, ast.ClassDef) and not name.startswith("_")
    ]
    assert classes
    return [("", core, stub), *classes]


def hidden(names):
    return {n for n in names if n.startswith("_") and n[:2] != "__"}


def test_private_names(owners):
    for name, owner, stub in owners:
        found = hidden(vars(owner))
        if name:
            assert found == hidden(stub), name
        else:
            functions = {n for n in found if callable(getattr(owner, n))}
            assert functions <= set(stub)


def test_signatures_are_given(owners):
    for name, owner, stub in owners:
        for key, node in stub.items():
            member = getattr(owner, key, None)
            if isinstance(node, ast.FunctionDef) and callable(member):
                assert inspect.signature(member), f"{name}.{key}"
