"""Reads left_out.toml and checks each of its entries against the test.

An entry is a private attribute of asyncio's own loop and the tests that read
or replace it.  The source of a test, of its set-up or of a private helper of
its class must name that attribute in every version that has the test: when it
no longer does, the entry is wrong and the run fails.
"""

from __future__ import annotations

import inspect
import re
import tomllib
import unittest
from collections import Counter
from collections.abc import Mapping
from pathlib import Path

LIST = Path(__file__).resolve().parent / "left_out.toml"
#: What is private to asyncio's own loop: a name that begins so, a name that
#: one of asyncio's modules has imported and a test replaces there, or in which
#: iteration it frees an object.
PRIVATE = re.compile(r"_\w+|asyncio\.\w+\.\w+|weakref\.ref")
ID = re.compile(r"test_\w+\.\w+\.test_\w+")


def entries() -> list[tuple[str, str, str]]:
    """Return each test that is left out, its attribute and the reason."""
    return [
        (test, entry["attribute"], entry["why"])
        for entry in tomllib.loads(LIST.read_text())["left_out"]
        for test in entry["tests"]
    ]


def mistakes() -> list[str]:
    """Return what is wrong with the list's form, a line each."""
    wrong = []
    for test, attribute, why in entries():
        if not ID.fullmatch(test):
            wrong.append(f"{test} is not module.Class.test")
        if not PRIVATE.fullmatch(attribute):
            wrong.append(f"{test}: {attribute} is not private")
        if not why:
            wrong.append(f"{test} has no reason")
    times = Counter(test for test, _, _ in entries())
    return wrong + [f"{t} is listed twice" for t, n in times.items() if n > 1]


def source_of(test: unittest.TestCase) -> str:
    """Return the source of a test, its set-up and the helpers it calls."""

    def read(name: str) -> str:
        part = inspect.unwrap(getattr(type(test), name))
        return inspect.getsource(part)

    body = read(test._testMethodName)
    helpers = set(re.findall(r"self\.(_\w+)\(", body)) & set(dir(type(test)))
    return body + "".join(read(name) for name in ["setUp", *sorted(helpers)])


def divide(
    tests: Mapping[str, unittest.TestCase],
) -> tuple[set[str], list[str]]:
    """Return which of these tests are left out, and what is wrong with it."""
    away = set()
    wrong = []
    for name, attribute, _ in entries():
        if (test := tests.get(name)) is None:
            continue
        away.add(name)
        if not re.search(rf"\b{re.escape(attribute)}\b", source_of(test)):
            wrong.append(f"{name} does not name {attribute}")
    return away, wrong
