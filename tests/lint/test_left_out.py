"""The list of tests that conformance leaves out has a reason for each."""

import importlib.util

import pytest

from .conftest import TOP


@pytest.fixture(scope="module")
def left_out():
    spec = importlib.util.spec_from_file_location(
        "left_out", TOP / "tests" / "conformance" / "left_out.py"
    )
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_the_list_is_in_form(left_out):
    entries = left_out.entries()
    assert entries
    assert left_out.mistakes(entries) == []
