"""What editors and help() show: every public name has a text.

Ruff (D1) asks for those in Python; these are of the C, whose texts the stub
repeats because an editor reads only that.
"""

import ast
import importlib
import inspect

from .test_stub import STUB, of_this_version


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


def test_the_stub_has_the_texts_of_the_core(built):
    core = importlib.import_module("fastloop._core").BaseLoop
    tree = ast.parse(STUB.read_text(encoding="utf-8"))
    (stub,) = [
        node
        for node in tree.body
        if isinstance(node, ast.ClassDef) and node.name == "BaseLoop"
    ]
    texts = {
        node.name: ast.get_docstring(node)
        for node in of_this_version(stub.body)
        if isinstance(node, ast.FunctionDef)
    }
    names = [name for name in public(core) if callable(getattr(core, name))]
    assert names
    for name in names:
        theirs = inspect.getdoc(getattr(core, name))
        assert texts[name].split() == theirs.split(), name


def test_every_public_name_of_the_package_has_a_text(built):
    package = importlib.import_module("fastloop")
    for name in package.__all__:
        if name != "__version__":
            assert len(inspect.getdoc(getattr(package, name)).split()) > 3
