"""One module of the package uses asyncio's private names: _private.py."""

import asyncio
import pkgutil
import re

from .conftest import TOP, short

MODULES = "|".join(one.name for one in pkgutil.iter_modules(asyncio.__path__))
#: events._lock, getattr(events, "_lock") and from asyncio.events import _lock
PRIVATE = re.compile(
    rf"""\b(?:asyncio|{MODULES})(?:\.|,\s*["'])_[a-z]\w*"""
    r"|from asyncio\S* import (?:\([^)]*|.*)\b_[a-z]\w*"
)


def test_one_module_uses_private_names():
    package = TOP / "fastloop"
    found = {
        short(path): uses
        for path in package.rglob("*.py")
        if (uses := PRIVATE.findall(path.read_text(encoding="utf-8")))
    }
    assert list(found) == ["fastloop/_loop/_private.py"], found
