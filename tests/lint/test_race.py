"""The cases of the race fit together, and it writes the README."""

import json
import subprocess
import sys

import pytest

from .conftest import TOP

BENCHMARKS = TOP / "benchmarks"
LIST_ROWS = """
import sys
sys.path.insert(0, sys.argv[1])
from harness import build, case, daemons
for one in case.all_cases().values():
    assert one.group in case.GROUPS, one.name
    assert set(one.programs) <= set(build.PROGRAMS), one.name
    assert set(one.daemons) <= set(daemons.DAEMONS), one.name
    print(*(row.key for row in one.rows))
"""


@pytest.fixture(scope="module")
def rows():
    """Return the keys of all rows; asked in an interpreter of its own, for
    the names of the benchmarks' packages are common ones."""
    done = subprocess.run(
        [sys.executable, "-c", LIST_ROWS, str(BENCHMARKS)],
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout.split()


def test_no_key_is_used_twice(rows):
    assert len(rows) == len(set(rows))


WRITE_README = """
import json
import sys
sys.path.insert(0, sys.argv[1])
from harness import chart, markdown
def row(key, own, group="core"):
    figures = {"asyncio": 0.5, "uvloop": 1.0, "rloop": 1.25, "fastloop": own}
    return {
        "row": key, "case": key, "title": key, "group": group, "unit": "1/s",
        "better": "more", "aside": False, "reach": "",
        "loops": {
            loop: {"figure": figure, "repetitions": [], "error": None}
            for loop, figure in figures.items()
        },
    }
data = {
    "rows": [row(key, 1.5) for key in chart.ROWS],
    "machine": {"python": "3.14.8 (main)", "cpus": [0, 1]},
    "settings": {"repeat": 5},
    "cut": "time was up",
}
data["rows"][0] = row(data["rows"][0]["row"], 1.1)
data["rows"][1] = row(data["rows"][1]["row"], 1.24)
also = {"rows": [row("two_threads", 0.9)]}
markdown.write_readme(sys.argv[2], data, also)
"""


def write_readme(path):
    return subprocess.run(
        [sys.executable, "-c", WRITE_README, str(BENCHMARKS), str(path)],
        capture_output=True,
        text=True,
        timeout=60,
    )


def test_the_race_writes_the_readme(tmp_path):
    readme = tmp_path / "README.md"
    readme.write_text(
        "before\n<!-- race: begin -->\nold\n<!-- race: end -->\nafter\n"
    )
    done = write_readme(readme)
    assert done.returncode == 0, done.stderr
    lines = readme.read_text().splitlines()
    assert lines[:2] == ["before", "<!-- race: begin -->"]
    assert lines[-2:] == ["<!-- race: end -->", "after"]
    assert "old" not in lines
    assert "| TCP echo, Protocol | 0.50 | 1.25 (rloop) | 1.10 |" in lines
    assert "| TCP echo, streams | 0.50 | 1.25 (rloop) | **1.24** |" in lines
    text = " ".join(lines)
    assert (
        "Of all 9 rows fastloop is first in 6, even with the best in 1 and"
        in text
    )
    assert "and behind in 2." in text
    assert "medians of up to 5 alternating runs." in text


def test_a_saved_run_is_reported_again(tmp_path):
    row = {
        "row": "call_soon",
        "case": "call_soon",
        "title": "call_soon, batch",
        "group": "core",
        "unit": "ns",
        "better": "less",
        "aside": False,
        "reach": "90",
        "loops": {
            loop: {
                "figure": figure,
                "repetitions": [{"figure": figure}, {"figure": 1.1 * figure}],
                "error": None,
            }
            for loop, figure in (("asyncio", 400), ("uvloop", 200))
        },
    }
    row["loops"]["fastloop"] = {**row["loops"]["uvloop"], "figure": 100}
    row["loops"]["rloop"] = {"figure": None, "repetitions": [], "error": "x"}
    machine = dict.fromkeys("date cpu system libc python openssl".split(), "?")
    machine |= {"cpus": [0, 1], "load_before": [1], "packages": {}}
    machine |= {"loops": {"asyncio": "3.14", "uvloop": "1"}}
    machine |= {"without_loops": {"zuvloop": "gone"}, "without": {}}
    data = {"rows": [row], "machine": machine, "cut": ""}
    data["settings"] = {"repeat": 2, "scale": 1.0}
    saved, page = tmp_path / "run.json", tmp_path / "RESULTS.md"
    saved.write_text(json.dumps(data))
    words = [BENCHMARKS / "run.py", "--from", saved, "--results", page]
    done = subprocess.run(
        [sys.executable, *words], capture_output=True, text=True, timeout=60
    )
    assert (done.returncode, done.stderr) == (0, "")
    assert "| call_soon, batch |   ns |     400 |    200 |" in done.stdout
    assert "call_soon on rloop failed: x" in done.stdout
    lines = page.read_text().splitlines()
    assert "- call_soon, batch: 100 ns, meant: 90" in lines
    assert "- zuvloop: gone" in lines
    (line,) = (one for one in lines if one.endswith("| first |"))
    assert line.split(" | ")[2:7] == [
        "100 ±10 %",
        "2.00",
        "0.50",
        "uvloop 1.00",
        "2.00",
    ]


def test_a_readme_without_its_section_is_left_as_it_is(tmp_path):
    readme = tmp_path / "README.md"
    readme.write_text("nothing\n")
    done = write_readme(readme)
    assert done.returncode == 1
    assert "has no section for the race" in done.stderr
    assert readme.read_text() == "nothing\n"


def test_the_readme_has_a_section_for_the_race():
    text = (TOP / "README.md").read_text()
    assert text.count("<!-- race: begin -->\n") == 1
    assert text.count("<!-- race: end -->\n") == 1
