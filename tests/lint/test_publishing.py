"""What is published: versions agree, and a tag that does not is refused.

`.ci/run --only publish` builds and checks the files themselves.
"""

import email
import re
import shutil
import subprocess
import sys

import pytest

from .conftest import TOP


def read(name):
    return (TOP / name).read_text(encoding="utf-8")


@pytest.fixture
def carried(tmp_path):
    """The metadata of a wheel that carries libuv."""
    pytest.importorskip("setuptools", reason="setuptools is not installed")
    tree = tmp_path / "tree"
    (tree / "fastloop").mkdir(parents=True)
    (tree / "tools").mkdir()
    for name in (
        *("setup.py", "pyproject.toml", "README.md", "LICENSE-MIT"),
        *("LICENSE-APACHE", "fastloop/__init__.py", "tools/build-libuv"),
        "tools/carry_libuv.py",
    ):
        shutil.copy(TOP / name, tree / name)
    (tree / "libuv's").write_text("terms")
    carry = [sys.executable, "tools/carry_libuv.py", "--pinned", "libuv's"]
    # Once for each wheel.
    subprocess.run(carry, cwd=tree, check=True)
    subprocess.run(carry, cwd=tree, check=True)
    info = [sys.executable, "setup.py", "-q", "dist_info", "-o", "out"]
    (tree / "out").mkdir()
    subprocess.run(info, cwd=tree, check=True)
    (folder,) = (tree / "out").glob("*.dist-info")
    return folder


def test_a_wheel_that_carries_libuv_names_its_licences(carried):
    with open(carried / "METADATA", encoding="utf-8") as file:
        metadata = email.message_from_file(file)
    assert metadata["License-Expression"] == (
        "(MIT OR Apache-2.0) AND MIT AND BSD-2-Clause AND ISC"
    )
    files = {"LICENSE-APACHE", "LICENSE-MIT", "LICENSE.libuv"}
    assert set(metadata.get_all("License-File")) == files
    text = (carried / "licenses" / "LICENSE.libuv").read_text()
    assert text == "terms"


def test_wheels_are_tested_with_the_pinned_libuv():
    version = re.search(r"^version=(\S+)$", read("tools/build-libuv"), re.M)[1]
    tested = re.findall(r"tools/smoke\.py (\S+)", read("pyproject.toml"))
    assert set(tested) == {version}


def long_description(folder, urls=""):
    """What PyPI would show, if pyproject.toml had these URLs."""
    for name in ("README.md", "setup.py", "pyproject.toml"):
        shutil.copy(TOP / name, folder)
    with open(folder / "pyproject.toml", "a") as file:
        file.write(urls)
    (folder / "fastloop").mkdir()
    (folder / "fastloop/__init__.py").write_text('__version__ = "1.2.0"\n')
    done = subprocess.run(
        [sys.executable, "setup.py", "--quiet", "--long-description"],
        capture_output=True,
        text=True,
        cwd=folder,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout.rstrip("\n")


LINKS = re.compile(r'\]\(([^)]+)\)|src(?:set)?="([^"]+)"')


def test_with_an_address_each_link_on_pypi_is_absolute(tmp_path):
    address = "https://github.com/someone/fastloop"
    urls = f'\n[project.urls]\nRepository = "{address}"\n'
    found = long_description(tmp_path, urls)
    links = ["".join(pair) for pair in LINKS.findall(found)]
    assert [one for one in links if not one.startswith("https://")] == []
    assert f"]({address}/blob/HEAD/docs/servers.md)" in found
    assert f'src="{address}/raw/HEAD/benchmarks/race-light.svg"' in found
    assert len(links) == len(LINKS.findall(read("README.md")))
