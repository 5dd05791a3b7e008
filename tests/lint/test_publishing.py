"""What is published: versions agree, and a tag that does not is refused.

`.ci/run --only publish` builds and checks the files themselves.
"""

import importlib.machinery
import importlib.util
import json
import re
import subprocess
import sys
import tomllib

import pytest

from .conftest import TOP

WORKFLOWS = sorted((TOP / ".github" / "workflows").glob("*.yml"))
PROJECT = tomllib.loads((TOP / "pyproject.toml").read_text("utf-8"))["project"]


def read(name):
    return (TOP / name).read_text(encoding="utf-8")


@pytest.fixture
def check_version(monkeypatch, tmp_path):
    path = str(TOP / "tools" / "check-version")
    loader = importlib.machinery.SourceFileLoader("check_version", path)
    spec = importlib.util.spec_from_loader("check_version", loader)
    module = importlib.util.module_from_spec(spec)
    monkeypatch.setattr(sys, "dont_write_bytecode", True)
    loader.exec_module(module)
    (tmp_path / "fastloop").mkdir()
    (tmp_path / "packaging" / "conda").mkdir(parents=True)
    recipe = 'context:\n  version: "1.2.0"\n'
    (tmp_path / "packaging/conda/recipe.yaml").write_text(recipe)
    (tmp_path / "fastloop/__init__.py").write_text('__version__ = "1.2.0"\n')
    changes = "# Changes\n\n## 1.2.0\n\n- New.\n\n## 1.1.0\n"
    (tmp_path / "CHANGELOG.md").write_text(changes)
    monkeypatch.setattr(module, "TOP", tmp_path)
    return module


def test_a_tag_that_is_the_version_passes(check_version):
    assert check_version.mistakes("v1.2.0") == []


def test_a_tag_of_another_version_is_refused(check_version):
    assert len(check_version.mistakes("v1.3.0")) == 3


def test_changes_that_belong_to_no_version_are_found(check_version):
    path = check_version.TOP / "CHANGELOG.md"
    head = "# Changes\n\n## Unreleased\n\n"
    path.write_text(f"{head}- More.\n\n## 1.2.0\n")
    assert len(check_version.mistakes("v1.2.0")) == 1
    path.write_text(f"{head}## 1.2.0\n")
    assert check_version.mistakes("v1.2.0") == []


def test_the_recipe_asks_for_what_the_build_asks_for():
    recipe = read("packaging/conda/recipe.yaml")
    init = read("fastloop/__init__.py")
    version = re.search(r'^__version__ = "(.+)"$', init, re.M)[1]
    assert f'version: "{version}"' in recipe
    assert f"python {PROJECT['requires-python']}" in recipe
    assert f"license: {PROJECT['license']}" in recipe
    floor = re.search(r"^LIBUV_FLOOR = \((\d+), (\d+)", read("setup.py"), re.M)
    assert f"libuv >={floor[1]}.{floor[2]}" in recipe
    assert '"setuptools>=77"' in read("pyproject.toml")
    assert "setuptools >=77" in recipe


def test_classifiers_name_the_supported_versions():
    """Those of the table in docs/versions.md, which .ci/run runs."""
    start = "Programming Language :: Python :: 3."
    named = {
        c.removeprefix("Programming Language :: Python :: ")
        for c in PROJECT["classifiers"]
        if c.startswith(start)
    }
    assert named == {"3.11", "3.12", "3.13", "3.14", "3.15"}
    table = read("docs/versions.md")
    for version in named:
        assert f"| CPython {version} " in table


def test_the_bill_of_materials_names_the_pinned_libuv():
    done = subprocess.run(
        [sys.executable, "tools/sbom.py"],
        capture_output=True,
        text=True,
        cwd=TOP,
        check=True,
    )
    bill = json.loads(done.stdout)
    (libuv,) = bill["components"]
    build = read("tools/build-libuv")
    assert f"version={libuv['version']}\n" in build
    (file,) = libuv["externalReferences"]
    assert f"sha256={file['hashes'][0]['content']}\n" in build
    assert bill["metadata"]["component"]["name"] == "fastloop"


@pytest.mark.parametrize("path", WORKFLOWS, ids=lambda path: path.stem)
def test_actions_are_pinned_by_commit(path):
    text = path.read_text(encoding="utf-8")
    used = re.findall(r"^\s*(?:- )?uses: (?!\./)(\S.*)$", text, re.M)
    for action in used:
        assert re.fullmatch(r"[\w./-]+@[0-9a-f]{40} # v\d[\d.]*", action)


def test_one_commit_for_an_action():
    pins = {}
    for path in WORKFLOWS:
        text = path.read_text(encoding="utf-8")
        for name, commit in re.findall(r"uses: (\S+)@([0-9a-f]{40})", text):
            assert pins.setdefault(name, commit) == commit, name
    assert len(pins) > 3
