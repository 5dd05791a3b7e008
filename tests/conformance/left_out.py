"""Reads left_out.toml and checks each of its entries against the test.

An entry is a test's id and the private attribute of asyncio's own loop that
the test reads or replaces.  The source of the test, of its set-up or of a
private helper of its class must name that attribute in every version that
has the test: when it no longer does, the entry is wrong and the run fails.
"""

from __future__ import annotations

import inspect
import re
import sys
import tomllib
import unittest
from collections.abc import Mapping
from pathlib import Path
from typing import Any

LIST = Path(__file__).resolve().parent / "left_out.toml"
#: What is private to asyncio's own loop: a name that begins so, or a name
#: that one of asyncio's modules has imported and a test replaces there.
PRIVATE = re.compile(r"_\w+|asyncio\.\w+\.\w+")
ID = re.compile(r"test_\w+\.\w+\.test_\w+")
NEEDED = {"test", "attribute", "why"}
KEYS = {*NEEDED, "since", "until"}


def entries() -> list[dict[str, Any]]:
    """Return the list as it is written."""
    return tomllib.loads(LIST.read_text())["left_out"]


def mistakes(found: list[dict[str, Any]]) -> list[str]:
    """Return what is wrong with the list's form, a line each."""
    wrong = []
    seen = set()
    for entry in found:
        test = str(entry.get("test"))
        if entry.keys() - KEYS or NEEDED - entry.keys():
            wrong.append(f"{test}: keys {sorted(entry)}")
        if not ID.fullmatch(test):
            wrong.append(f"{test} is not module.Class.test")
        if not PRIVATE.fullmatch(str(entry.get("attribute"))):
            wrong.append(f"{test}: {entry.get('attribute')} is not private")
        if not entry.get("why"):
            wrong.append(f"{test} has no reason")
        if test in seen:
            wrong.append(f"{test} is listed twice")
        seen.add(test)
    return wrong


def applies(entry: Mapping[str, Any]) -> bool:
    """Return whether the entry is about this interpreter's version."""

    def number(text: str) -> tuple[int, ...]:
        return tuple(map(int, text.split(".")))

    here = sys.version_info[:2]
    since = number(entry.get("since", "3.0"))
    return since <= here <= number(entry.get("until", "4.0"))


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
    for entry in entries():
        test = tests.get(entry["test"])
        if test is None or not applies(entry):
            continue
        away.add(entry["test"])
        word = rf"\b{re.escape(entry['attribute'])}\b"
        if not re.search(word, source_of(test)):
            wrong.append(f"{entry['test']} does not name {entry['attribute']}")
    return away, wrong
