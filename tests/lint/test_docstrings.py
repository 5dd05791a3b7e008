"""What editors and help() show: every public name has a text.

Ruff (D1) asks for those in Python; these are of the C.  The stub has types
only, so that each text has one place.
"""

import ast
import importlib
import inspect

from .test_stub import STUB


def public(cls):
    return [name for name in dir(cls) if not name.startswith("_")]


def test_every_public_name_of_the_loop_has_a_text(built):
    cls = importlib.import_module("fastloop").Loop
    own = [
        name
        for name in public(cls)
        if next(
            c for c in cls.__mro__ if name in vars(c)
        ).__module__.startswith("fastloop")
    ]
    assert len(own) > 30
    for name in own:
        text = inspect.getattr_static(cls, name).__doc__ or ""
        assert len(text.split()) > 3, name


def test_the_stub_repeats_no_text_of_the_core():
    tree = ast.parse(STUB.read_text(encoding="utf-8"))
    for node in ast.walk(tree):
        if isinstance(node, ast.ClassDef | ast.FunctionDef):
            assert ast.get_docstring(node) is None, node.name


def test_every_public_name_of_the_package_has_a_text(built):
    package = importlib.import_module("fastloop")
    for name in package.__all__:
        if name != "__version__":
            assert len(inspect.getdoc(getattr(package, name)).split()) > 3
