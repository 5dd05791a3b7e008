"""Every public name that Loop defines says what it does, in which unit, and
what it raises.  What it inherits from asyncio has asyncio's text.

An editor reads the stub, so the stub has the texts of the core too.
"""

import ast
import asyncio
import importlib
import inspect
import re

import pytest

from .test_stub import STUB, of_this_version

#: What can raise nothing that a caller could bring about.
CANNOT_FAIL = set(
    "create_future get_debug is_closed is_running stop time".split()
)
#: The unit that a parameter of such a name wants said.
UNITS = {
    r"delay|when|timeout|\w+_timeout|\w+_delay": "second",
    "n|nbytes|bufsize|count|offset": "byte",
    "backlog": "connections",
}


@pytest.fixture(scope="module")
def loop_class(built):
    return importlib.import_module("fastloop").Loop


def public(cls):
    return [name for name in dir(cls) if not name.startswith("_")]


def own_names(cls):
    """The public names that classes of fastloop define, with their texts."""
    for name in public(cls):
        owner = next(c for c in cls.__mro__ if name in vars(c))
        if owner.__module__.startswith("fastloop"):
            value = inspect.getattr_static(cls, name)
            yield name, inspect.cleandoc(value.__doc__ or "")


def lacking(name, parameters, text):
    """What the docstring TEXT of a name does not say."""
    found = [] if len(text.split()) > 3 else ["what it does"]
    if name not in CANNOT_FAIL and not re.search(r"\b[Rr]aises\b", text):
        found.append("what it raises")
    for pattern, word in UNITS.items():
        if word not in text and any(
            re.fullmatch(pattern, one) for one in parameters
        ):
            found.append(f"the unit of {pattern}")
    source = rf"asyncio's\s+`*loop\.{name}\b|asyncio has\s+no\s+counterpart"
    if not re.search(source, text):
        found.append("its source in asyncio")
    return found


def test_every_public_name_of_ours(loop_class):
    names = public(loop_class)
    assert set(names) >= set(public(asyncio.SelectorEventLoop))
    bad = {}
    texts = dict(own_names(loop_class))
    assert len(texts) > 30
    for name, text in texts.items():
        value = getattr(loop_class, name)
        parameters = (
            inspect.signature(value).parameters if callable(value) else ()
        )
        missing = lacking(name, parameters, text)
        if missing:
            bad[name] = missing
    assert bad == {}


@pytest.mark.parametrize(
    ("text", "missing"),
    [
        ("", 4),
        ("Wait a while for it.", 3),
        ("Wait some seconds for it.  asyncio's ``loop.wait()``.", 1),
        ("Wait some seconds.  Raises OSError.  asyncio's loop.wait().", 0),
    ],
)
def test_what_is_missing_is_found(text, missing):
    assert len(lacking("wait", ["ssl_timeout"], text)) == missing


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


def test_no_public_name_of_the_package_goes_without(built):
    package = importlib.import_module("fastloop")
    for name in package.__all__:
        if name != "__version__":
            assert len(inspect.getdoc(getattr(package, name)).split()) > 3
