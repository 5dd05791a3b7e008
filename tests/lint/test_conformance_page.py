"""The page of conformance has the counts of runs, and all of them."""

import importlib.util
import json
import sys

import pytest

from .conftest import TOP

PAGE = TOP / "docs" / "conformance.md"
FOLDER = TOP / "tests" / "conformance"
#: What table.py imports from the folders of tests.
BESIDE = ("left_out", "run", "upstream_suites")


@pytest.fixture
def table(monkeypatch, tmp_path):
    """tests/conformance/table.py, which finds results in TMP_PATH."""
    monkeypatch.setattr(sys, "path", sys.path[:])
    for name in BESIDE:
        monkeypatch.delitem(sys.modules, name, raising=False)
    spec = importlib.util.spec_from_file_location("table", FOLDER / "table.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    monkeypatch.setattr(module, "OUT", tmp_path)
    yield module
    for name in BESIDE:
        sys.modules.pop(name, None)


def write_results(table, folder, own):
    """Results of each version, all different, and of one suite."""
    versions = dict(zip(table.VERSIONS, own, strict=True))
    for i, (name, version) in enumerate(versions.items()):
        counts = {key: 10 * i + j for j, key in enumerate(table.COLUMNS)}
        found = {"version": version, "counts": counts}
        (folder / f"{name}.json").write_text(json.dumps(found))
    for name in table.SUITES:
        suite = {
            "name": name,
            "version": "1.2",
            "counts": {"asyncio": {"passed": 8}, "fastloop": {"passed": 7}},
            "not_judged": ["one"],
            "only_on_asyncio": [],
        }
        (folder / f"upstream-{name}.json").write_text(json.dumps(suite))


def test_results_are_written_into_the_page(table, tmp_path):
    own = {f"3.{i}.0": {"passed": 100 + i} for i in range(len(table.VERSIONS))}
    write_results(table, tmp_path, own)
    page = tmp_path / "conformance.md"
    page.write_text(PAGE.read_text())
    table.write_page(page, table.results(), own)
    lines = page.read_text().splitlines()
    # Failed and hung together, and so what no loop of ours ran.
    assert "| 3.1.0 | 10 | 23 | 13 | 14 | 48 | 101 |" in lines
    assert "| uvicorn 1.2 | 8 | 7 | 0 | 1 |" in lines
    assert len([line for line in lines if line.startswith("| 3.")]) == len(own)


def test_a_page_without_a_section_is_refused(table, tmp_path):
    own = {f"3.{i}.0": {"passed": 1} for i in range(len(table.VERSIONS))}
    write_results(table, tmp_path, own)
    page = tmp_path / "conformance.md"
    page.write_text("nothing\n")
    with pytest.raises(ValueError, match="has no section cpython"):
        table.write_page(page, table.results(), own)


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
        assert int(on_asyncio) == own[version]["passed"]
        assert int(passed) >= int(on_asyncio)
