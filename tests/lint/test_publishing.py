"""What is published: versions agree, and a tag that does not is refused.

`.ci/run --only publish` builds and checks the files themselves.
"""

import importlib.machinery
import importlib.util
import json
import subprocess
import sys

import pytest

from .conftest import TOP


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
