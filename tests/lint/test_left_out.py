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


@pytest.mark.parametrize(
    "change",
    [
        {"test": "test_events.*.test_close"},
        {"test": "test_events"},
        {"test": "test_events.EventTests"},
        {"attribute": "close"},
        {"attribute": "fails"},
        {"why": ""},
        {"reason": "it fails"},
    ],
    ids=str,
)
def test_what_is_no_reason_is_found(left_out, change):
    entry = {"test": "test_a.B.test_c", "attribute": "_ready", "why": "reads"}
    assert left_out.mistakes([entry]) == []
    assert len(left_out.mistakes([entry | change])) == 1
    assert len(left_out.mistakes([entry, entry])) == 1


def test_a_test_that_does_not_name_the_attribute_is_found(
    left_out, monkeypatch
):
    class Case:
        _testMethodName = "test_it"  # noqa: N815

        def setUp(self):  # noqa: N802
            pass

        def test_it(self):
            self._helper()

        def _helper(self):
            self.loop._ready.clear()

    entry = {"test": "test_a.Case.test_it", "why": "reads"}
    tests = {"test_a.Case.test_it": Case()}
    for attribute, wrong in (("_ready", 0), ("_scheduled", 1)):
        monkeypatch.setattr(
            left_out, "entries", lambda a=attribute: [entry | {"attribute": a}]
        )
        away, found = left_out.divide(tests)
        assert away == set(tests)
        assert len(found) == wrong
