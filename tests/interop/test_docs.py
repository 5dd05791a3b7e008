"""The user's pages: their programs run, their links and names exist."""

from __future__ import annotations

import ast
import re
import subprocess
import sys
import warnings
from pathlib import Path

import pytest
from interop_process import child_env

ROOT = Path(__file__).parents[2]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
BLOCK = re.compile(r"^```python\n(.*?)^```", re.M | re.S)
LINK = re.compile(r"\]\((?!https?:)([^)#]+)")


BLOCKS = [
    pytest.param(block, id=f"{page.stem}-{i}")
    for page in PAGES
    for i, block in enumerate(BLOCK.findall(page.read_text("utf-8")))
]


@pytest.mark.parametrize("source", BLOCKS)
def test_program_compiles_and_knows_fastloop(source):
    """Every attribute of fastloop that a page writes exists."""
    tree = ast.parse(source)
    pytest.importorskip("fastloop._core", reason="fastloop is not built")
    import fastloop

    used = {
        node.attr
        for node in ast.walk(tree)
        if isinstance(node, ast.Attribute)
        and isinstance(node.value, ast.Name)
        and node.value.id == "fastloop"
    }
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        assert [name for name in used if not hasattr(fastloop, name)] == []


def named(name):
    """The one program of the pages that begins with its name."""
    (source,) = [
        block
        for page in PAGES
        for block in BLOCK.findall(page.read_text("utf-8"))
        if block.startswith(f"# {name}\n")
    ]
    return source


def test_the_program_that_looks_inside_runs():
    pytest.importorskip("fastloop._core", reason="fastloop is not built")
    done = subprocess.run(
        [sys.executable, "-c", named("seeing.py")],
        env=child_env(),
        capture_output=True,
        text=True,
        timeout=50,
    )
    assert done.returncode == 0, done.stderr
    assert re.fullmatch(
        r"busy for .*%.*\nlate by .* ms.*\n\d+ turns, \d+ callbacks\n",
        done.stdout,
    )


def test_the_first_measurement_runs():
    pytest.importorskip("fastloop._core", reason="fastloop is not built")
    source = re.sub(r"n=(\d+)_000", r"n=\g<1>00", named("gain.py"))
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", source],
        capture_output=True,
        text=True,
        timeout=60,
        env=child_env(),
    )
    assert done.returncode == 0, done.stderr
    for case in ("turns", "timers", "threads"):
        line = rf"{case}: asyncio +[\d,]+/s, fastloop +[\d,]+/s, [\d.]+ times"
        assert re.search(line, done.stdout)


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_links(page):
    for target in LINK.findall(page.read_text("utf-8")):
        assert (page.parent / target).exists(), target


def test_every_public_name_of_uvloop_has_its_row():
    uvloop = pytest.importorskip("uvloop", reason="uvloop is not installed")
    public = {*uvloop.__all__, "Loop", "__version__"}
    page = (ROOT / "docs" / "coming-from-uvloop.md").read_text("utf-8")
    rows = {
        row.split("|")[1] for row in page.splitlines() if row.startswith("| `")
    }
    for name in public:
        assert any(f"uvloop.{name}" in row for row in rows), name
