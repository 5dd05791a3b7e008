"""What mypy's stubtest does not ask of fastloop/_core.pyi.

It leaves out a member whose signature the built module does not give, and
private functions that the stub does not have.
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


def test_private_functions(owners):
    (_, core, stub), *_ = owners
    for name, found in vars(core).items():
        if name.startswith("_") and name[:2] != "__" and callable(found):
            assert name in stub


def test_signatures_are_given(owners):
    for name, owner, stub in owners:
        for key, node in stub.items():
            member = getattr(owner, key, None)
            if isinstance(node, ast.FunctionDef) and callable(member):
                assert inspect.signature(member), f"{name}.{key}"
