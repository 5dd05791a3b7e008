"""README.md as PyPI shows it.

`.ci/run --only publish` builds and checks the files themselves.
"""

import re
import shutil
import subprocess
import sys

from .c_text import read
from .conftest import TOP


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
    assert len(links) == len(LINKS.findall(read(TOP / "README.md")))
