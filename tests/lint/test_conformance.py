"""CPython's own tests: each that is left out has a reason, and none failed."""

import importlib.util
import json

import pytest

from .conftest import TOP

PAGE = TOP / "docs" / "conformance.md"
FOLDER = TOP / "tests" / "conformance"


@pytest.fixture(scope="module")
def left_out():
    spec = importlib.util.spec_from_file_location(
        "left_out", FOLDER / "left_out.py"
    )
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_the_list_is_in_form(left_out):
    assert left_out.entries()
    assert left_out.mistakes() == []


def test_the_page_has_each_version_and_nothing_failed():
    own = json.loads((FOLDER / "counts.json").read_text())
    rows = [
        line.strip("| ").split(" | ")
        for line in PAGE.read_text("utf-8").splitlines()
        if line.startswith("| 3.")
    ]
    assert {row[0] for row in rows} == set(own)
    for version, passed, failed, *_, on_asyncio in rows:
        assert int(failed) == 0
        assert int(on_asyncio) == own[version]
        assert int(passed) >= int(on_asyncio)
