"""What help() shows: every public name has a text.

Ruff (D1) asks for those in Python; these are of the C, too.
"""

import importlib
import inspect


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


def test_every_public_name_of_the_package_has_a_text(built):
    package = importlib.import_module("fastloop")
    for name in package.__all__:
        if name != "__version__":
            assert len(inspect.getdoc(getattr(package, name)).split()) > 3
