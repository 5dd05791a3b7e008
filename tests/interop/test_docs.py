"""The user's pages: their programs run, their links and names exist."""

from __future__ import annotations

import ast
import re
import urllib.request
import warnings
from pathlib import Path

import pytest
from builds import HAS_GIL
from interop_process import ended
from patience import PATIENCE

ROOT = Path(__file__).parents[2]
PAGES = sorted([*ROOT.glob("*.md"), *ROOT.glob("docs/*.md")])
BLOCK = re.compile(r"^```python\n(.*?)^```", re.M | re.S)
LINK = re.compile(r"\]\((?!https?:)([^)#]*)#?([^)]*)\)")


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


def is_named(block):
    return re.match(r"# \w+\.(conf\.)?py\n", block)


@pytest.mark.parametrize(
    "source", [each for each in BLOCKS if not is_named(each.values[0])]
)
def test_a_program_without_a_name_runs(source, tmp_path):
    done = ended("-W", "ignore", "-c", source, cwd=tmp_path)
    if missing := re.search(r"No module named '(?!fastloop)", done.stderr):
        pytest.skip(missing.string.splitlines()[-1])
    assert done.returncode == 0, done.stderr


def test_each_program_with_a_name_has_a_test():
    """The tests of servers have programs of their own that say the same."""
    names = {
        match[0].split()[1]
        for each in BLOCKS
        if (match := is_named(each.values[0]))
    }
    tests = "".join(
        path.read_text("utf-8") for path in Path(__file__).parent.glob("*.py")
    )
    # Of apps/gunicorn_fastloop.py; and Ray, which not each Python has.
    elsewhere = {"workers.py", "ray_actors.py"}
    assert [name for name in names - elsewhere if name not in tests] == []


@pytest.mark.parametrize("library", ["quart", "litestar", "django"])
def test_a_frameworks_application_runs_under_uvicorn(library, start):
    pytest.importorskip(library, reason=f"{library} is not installed")
    pytest.importorskip("uvicorn", reason="uvicorn is not installed")
    child = start(
        *("-m", "uvicorn", "--factory", f"frameworks:{library}"),
        *("--loop", "fastloop:new_event_loop", "--port", "0"),
    )
    url = child.wait_for(r"running on (http://[\d.]+:\d+)")[1]
    with urllib.request.urlopen(url, timeout=PATIENCE) as response:
        assert b"<fastloop.Loop " in response.read()


def test_the_program_that_looks_inside_runs():
    pytest.importorskip("fastloop._core", reason="fastloop is not built")
    done = ended("-c", named("seeing.py"))
    assert done.returncode == 0, done.stderr
    assert re.fullmatch(
        r"busy for .*%.*\nlate by .* ms or less.*\n"
        r"\d+ iterations, \d+ callbacks\n",
        done.stdout,
    )


@pytest.mark.skipif(
    not HAS_GIL,
    reason="there is no watchdog without a GIL",
)
def test_the_program_that_blocks_is_reported(tmp_path):
    """The page shows what it writes, but for the path and the time."""
    pytest.importorskip("fastloop._core", reason="fastloop is not built")
    path = tmp_path / "blocked.py"
    path.write_text(named("blocked.py"))
    done = ended(str(path))
    page = (ROOT / "docs" / "seeing-inside.md").read_text("utf-8")
    (shown,) = re.findall(r"^```\n(main has .*?)^```", page, re.M | re.S)
    took = re.compile(r"\d\.\d{3}")
    expected = shown.replace("/srv/blocked.py", str(path))
    assert took.sub("", done.stderr) == took.sub("", expected)


def test_the_first_measurement_runs():
    pytest.importorskip("fastloop._core", reason="fastloop is not built")
    source = re.sub(r"n=(\d+)_000", r"n=\g<1>00", named("gain.py"))
    done = ended("-W", "error", "-c", source)
    assert done.returncode == 0, done.stderr
    for case in ("switches", "timers", "threads"):
        line = rf"{case}: asyncio +[\d,]+/s, fastloop +[\d,]+/s, [\d.]+ times"
        assert re.search(line, done.stdout)


def anchors(page):
    """The names that a link to the page may end with."""
    text = page.read_text("utf-8")
    given = re.findall(r"{ #([\w-]+) }", text)
    described = re.findall(r"^::: (.+)$", text, re.M)
    for heading in re.findall(r"^#+ (.+)$", text, re.M):
        kept = re.sub(r"[^\w -]", "", heading)
        given.append(kept.lower().replace(" ", "-"))
    return {*given, *described}


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_links(page):
    for target, anchor in LINK.findall(page.read_text("utf-8")):
        path = page.parent / target if target else page
        assert path.exists(), target
        if anchor and path.suffix == ".md":
            assert anchor in anchors(path), f"{target}#{anchor}"


def test_every_public_name_of_uvloop_has_its_row():
    uvloop = pytest.importorskip("uvloop", reason="uvloop is not installed")
    public = {*uvloop.__all__, "Loop", "__version__"}
    page = (ROOT / "docs" / "coming-from-uvloop.md").read_text("utf-8")
    rows = {
        row.split("|")[1] for row in page.splitlines() if row.startswith("| `")
    }
    for name in public:
        assert any(f"uvloop.{name}" in row for row in rows), name
