"""The programs of docs/why-people-leave-uvloop.md, on each loop.

asyncio and fastloop have to do right in all of them.  Where one of the page's
versions of uvloop is installed, its results have to be those of the table.
"""

from __future__ import annotations

import importlib.metadata
import re
import sys

import pytest
from interop_process import ended
from test_docs import ROOT

PAGE = ROOT / "docs" / "why-people-leave-uvloop.md"
FOLDER = ROOT / "docs" / "leaving-uvloop"
PROGRAMS = sorted(path.name for path in FOLDER.glob("*.py"))
ROW = re.compile(
    r"^\| \[`(\w+\.py)`\]\([^|]*\|[^|]*\| (.*?) \| (.*?) \|$", re.M
)
VERSIONS = re.compile(r"^\| program \| reports \|(.*)\|$", re.M)
ROWS = {row[0]: row[1:] for row in ROW.findall(PAGE.read_text("utf-8"))}


def run(name, loop, tmp_path):
    """Run a program in a process of its own."""
    return ended(str(FOLDER / name), loop, cwd=tmp_path)


def did_right(done):
    return (done.returncode, done.stdout) == (0, "right\n")


def test_the_table_has_each_program():
    assert sorted(ROWS) == PROGRAMS


@pytest.mark.parametrize("name", PROGRAMS)
@pytest.mark.parametrize("loop", ["asyncio", "fastloop"])
def test_a_program_of_the_page_does_right(name, loop, tmp_path):
    pytest.importorskip(loop)
    done = run(name, loop, tmp_path)
    assert did_right(done), done.stdout + done.stderr


@pytest.mark.parametrize("name", PROGRAMS)
def test_uvloop_does_what_the_table_says(name, tmp_path):
    pytest.importorskip("uvloop", reason="uvloop is not installed")
    version = importlib.metadata.version("uvloop")
    (columns,) = VERSIONS.findall(PAGE.read_text("utf-8"))
    versions = re.findall(r"uvloop ([\d.]+)", columns)
    if version not in versions:
        pytest.skip(f"the page says nothing of uvloop {version}")
    verdict = ROWS[name][versions.index(version)]
    if verdict.endswith("from 3.12 on") and sys.version_info < (3, 12):
        verdict = "right"
    assert verdict.startswith("fails") or verdict == "right"
    done = run(name, "uvloop", tmp_path)
    assert did_right(done) == (verdict == "right"), done.stdout + done.stderr
