"""The pages of the race agree, and say what was measured."""

import json
import re
import subprocess
import sys

import pytest

from fastloop.cli.compare import compare

from .conftest import BENCHMARKS, TOP, asked

WRITE_TABLE = """
import json
import sys
sys.path.insert(0, sys.argv[1])
from harness import chart, markdown
def row(key, own, group="core"):
    figures = {"asyncio": 0.5, "uvloop": 1.0, "rloop": 1.25, "fastloop": own}
    noise = (0.3, 1, 3) if key == "spread" else (0.999, 1, 1.001)
    return {
        "row": key, "case": key, "title": key, "group": group, "unit": "1/s",
        "better": "more", "aside": False, "reach": "", "judge": "median",
        "loops": {
            loop: {
                "figure": figure,
                "repetitions": [
                    {"figure": figure * (part if loop == "fastloop" else 1)}
                    for part in noise
                ],
                "error": None,
            }
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
also = {"rows": [row("two_threads", 0.9), row("spread", 2)]}
markdown.write_table(sys.argv[2], data, also)
"""


def write_table(path, source=WRITE_TABLE):
    return subprocess.run(
        [sys.executable, "-c", source, str(BENCHMARKS), str(path)],
        capture_output=True,
        text=True,
        timeout=60,
    )


def test_the_race_writes_a_table(tmp_path):
    page = tmp_path / "page.md"
    page.write_text(
        "before\n<!-- race: begin -->\nold\n<!-- race: end -->\nafter\n"
    )
    done = write_table(page)
    assert done.returncode == 0, done.stderr
    lines = page.read_text().splitlines()
    assert lines[:2] == ["before", "<!-- race: begin -->"]
    assert lines[-2:] == ["<!-- race: end -->", "after"]
    assert "old" not in lines
    assert "| TCP echo, Protocol | 1.10 | 0.50 | 1.25 (rloop) |" in lines
    assert "| TCP echo, streams | **1.24** | 0.50 | 1.25 (rloop) |" in lines
    text = " ".join(lines)
    # Places are counted in all rows, so they add up.
    assert "Against uvloop, fastloop is faster in 8, slower in 1 and" in text
    assert "whichever of the 3 others did best there, fastloop is first" in (
        text
    )
    assert (
        "first in 6, behind in 2, even (within 3%) in 1 and inconclusive in 1 "
        "of 10 rows." in text
    )
    assert "mean ratios of up to 5 alternating runs." in text
    assert "Bold: first, or even with the best (within 3%). Others" in text


def test_a_table_without_bold_does_not_explain_bold(tmp_path):
    page = tmp_path / "page.md"
    page.write_text("<!-- race: begin -->\n<!-- race: end -->\n")
    # Each row is as the first, in which another loop is ahead.
    source = WRITE_TABLE.replace("key, 1.5)", "key, 1.1)")
    done = write_table(page, source.replace("1.24", "1.1"))
    assert done.returncode == 0, done.stderr
    text = " ".join(page.read_text().split())
    assert "No row here is certainly first; see RESULTS.md. CPython" in text
    assert "**" not in text and "Bold" not in text


@pytest.fixture
def saved_run(tmp_path):
    """saved_run(key, cut): the file of a run with one row, of this key."""

    def saved_run(key, cut=""):
        saved = tmp_path / "run.json"
        saved.write_text(json.dumps(run_of(key, cut)))
        return saved

    return saved_run


def run_of(key, cut):
    row = {
        "row": key,
        "case": key,
        "title": "call_soon, batch",
        "group": "core",
        "unit": "ns",
        "better": "less",
        "aside": False,
        "reach": "90",
        "judge": "median",
        "loops": {
            loop: {
                "figure": figure,
                "repetitions": [{"figure": figure}, {"figure": 1.1 * figure}],
                "error": None,
            }
            for loop, figure in (("asyncio", 400), ("uvloop", 200))
        },
    }
    row["loops"]["fastloop"] = {
        "figure": 100,
        "repetitions": [{"figure": 100}, {"figure": 110}],
        "error": None,
    }
    row["loops"]["rloop"] = {"figure": None, "repetitions": [], "error": "x"}
    machine = dict.fromkeys("date cpu system libc python openssl".split(), "?")
    machine |= {"cpus": [0, 1], "load_before": [1], "packages": {}}
    machine |= {"loops": {"asyncio": "3.14", "uvloop": "1"}}
    machine |= {"without_loops": {"zuvloop": "gone"}, "without": {}}
    settings = {"repeat": 2, "scale": 1.0}
    return {"rows": [row], "machine": machine, "cut": cut} | {
        "settings": settings
    }


def report_again(*words):
    command = [sys.executable, BENCHMARKS / "run.py", "--from", *words]
    return subprocess.run(command, capture_output=True, text=True, timeout=60)


def test_a_quick_run_ends_with_its_main_rows(saved_run):
    cut = "time was up after 280 of 286 measurements"
    done = report_again(saved_run("uvicorn", cut))
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.endswith(
        f"Not complete: {cut}. This is normal on a busy machine.\n\n"
        "uvicorn (plain text, requests a second): 4.0 times asyncio, "
        "2.00 times uvloop\n"
        "benchmarks/README.md explains the rows.\n"
    )


ABSENT = """
import sys
sys.path.insert(0, sys.argv[1])
import run
def probe(name, python):
    if name == "zloop":
        return {"error": "OSError: no"}
    if name in ("asyncio", "fastloop"):
        return {"version": "1"}
    return {"error": f"ModuleNotFoundError: No module named '{name}'"}
run.schedule.probe = probe
print(*run.find_loops("asyncio,rloop,zloop,talyn", "python", "; hint")[0])
"""


def test_loops_that_are_not_installed_are_one_line():
    done = subprocess.run(
        [sys.executable, "-c", ABSENT, str(BENCHMARKS)],
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert done.stdout == "asyncio\n"
    assert done.stderr == (
        "without zloop: OSError: no\nnot installed here: rloop, talyn; hint\n"
    )


def test_a_saved_run_is_reported_again(tmp_path, saved_run):
    page = tmp_path / "RESULTS.md"
    done = report_again(saved_run("call_soon"), "--results", page)
    assert (done.returncode, done.stderr) == (0, "")
    assert "| call_soon, batch |   ns |     400 |    200 |" in done.stdout
    assert "call_soon on rloop failed: x" in done.stdout
    lines = page.read_text().splitlines()
    assert "- call_soon, batch: 100 ns, meant: 90" in lines
    assert "- zuvloop: gone" in lines
    (line,) = (one for one in lines if one.endswith("| first |"))
    assert line.split(" | ")[2:7] == [
        "100 ±5 %",
        "2.00",
        "4.00",
        "uvloop 1.00",
        "2.00 (2.00 to 2.00)",
    ]
    (cells,) = (one for one in lines if one.endswith("| 200 ±5 % |"))
    assert cells == "| call_soon, batch | ns | 400 ±5 % | 200 ±5 % |"


PLACES = """
import json
import sys
sys.path.insert(0, sys.argv[1])
from harness import markdown
def row(own, peer):
    loops = {
        loop: {
            "figure": sorted(figures)[len(figures) // 2],
            "repetitions": [{"figure": figure} for figure in figures],
            "error": None,
        }
        for loop, figures in (("fastloop", own), ("uvloop", peer)) if figures
    }
    return {"better": "less", "aside": False, "judge": "median",
            "loops": loops}
found = row(*json.loads(sys.argv[2]))
if len(sys.argv) > 3:
    found["loops"]["fastloop"]["error"] = sys.argv[3]
print(markdown.place(found))
print(markdown.over_best(found))
print(markdown.with_spread(found, "fastloop"))
"""


@pytest.mark.parametrize(
    ("own", "place"),
    [
        ([50.0, 51.0, 52.0, 50.0, 51.0], "first"),
        ([199.0, 205.0, 190.0, 201.0, 203.0], "**behind**"),
        ([101.0, 100.0, 99.0, 100.0, 101.0], "even"),
        # Told apart, and still within 3 %.
        ([99.0, 99.0, 99.0, 99.0, 99.0], "even"),
        ([20.0, 900.0, 80.0, 4_000.0, 15.0], "inconclusive"),
        ([1.0, 1e9], "inconclusive"),
        ([50.0], "inconclusive"),
        ([], "not measured"),
    ],
)
def test_a_row_has_the_place_that_its_interval_tells(own, place):
    peer = [100.0] * 5
    found, over, _ = asked(PLACES, json.dumps([own, peer])).split("\n", 2)
    assert found == place
    found = compare(own, peer, "less")
    if found and found.high < 100:
        interval = f"({found.low:.2f} to {found.high:.2f})"
        assert over == f"{found.ratio:.2f} {interval}"


def test_a_loop_that_failed_in_the_end_has_no_place():
    figures = json.dumps([[50.0, 51.0], [100.0] * 5])
    assert asked(PLACES, figures, "crash").startswith("not measured\n")


NO_RACE = """
import sys
sys.path.insert(0, sys.argv[1])
from harness import markdown
found = {"figure": 1.0, "repetitions": [{"figure": 1.0}], "error": None}
row = {"aside": False, "better": "less", "loops": {"uvloop": found}}
print(markdown.place(row))
print(markdown.place({**row, "aside": True}))
print(markdown.place({**row, "better": "near 0"}))
print(markdown.place(row, "asyncio"))
"""


def test_a_row_without_a_race_has_no_place_where_fastloop_failed():
    assert asked(NO_RACE) == "not measured\n\n\n\n"


def test_figures_that_lie_far_apart_are_shown_by_the_interval_of_the_median():
    own = [float(place) for place in range(1, 11)]
    shown = asked(PLACES, json.dumps([own, own])).splitlines()[-1]
    # The second and the last but one of ten: 97.9 % of all medians.
    assert shown == "6.00 (2.00 to 9.00)"
    assert asked(PLACES, json.dumps([own[4:6], own])).splitlines()[-1] == (
        "6.00 ±8 %"
    )
    # Five have no such interval: their least and greatest hold 93.75 %.
    assert asked(PLACES, json.dumps([own[:5], own])).splitlines()[-1] == (
        "3.00 ±67 %"
    )


def test_a_page_without_its_section_is_left_as_it_is(tmp_path):
    page = tmp_path / "page.md"
    page.write_text("nothing\n")
    done = write_table(page)
    assert done.returncode == 1
    assert "has no section for the race" in done.stderr
    assert page.read_text() == "nothing\n"


@pytest.mark.parametrize(
    "name",
    [
        "README.md",
        "docs/index.md",
        "docs/performance.md",
        "docs/one-process-many-loops.md",
    ],
)
def test_a_page_has_a_section_for_the_race(name):
    text = (TOP / name).read_text()
    assert text.count("<!-- race: begin -->\n") == 1
    assert text.count("<!-- race: end -->\n") == 1


QUOTING = ("README.md", "docs/index.md", "docs/one-process-many-loops.md")


def write_pages(folder, report):
    words = [BENCHMARKS / "run.py", "--page", report, "--pages", folder]
    return subprocess.run(
        [sys.executable, *words], capture_output=True, text=True, timeout=60
    )


@pytest.fixture
def pages(tmp_path):
    """A folder with the pages that quote the report."""
    (tmp_path / "docs").mkdir()
    for name in QUOTING:
        (tmp_path / name).write_text((TOP / name).read_text())
    return tmp_path


def test_pages_say_what_the_report_says(pages):
    done = write_pages(pages, BENCHMARKS / "RESULTS.md")
    assert (done.returncode, done.stderr) == (0, "")
    for name in QUOTING:
        assert (pages / name).read_text() == (TOP / name).read_text()


REPORT = """\
- 2026-01-01; a CPU, 2 CPUs, Linux; load before: 0.0
- CPython 3.14.8 (main)
- Against uvloop, fastloop is faster in 2 and slower in 1 of 3 rows.
- Against the best peer of a row, fastloop is behind in 4 of 4 rows.

| row | unit | fastloop | over uvloop | over asyncio | best peer |
| --- | ---: | ---: | ---: | ---: | ---: |
| TCP echo, Protocol, 64 of 1 KiB, server CPU | us | 4 | 1.50 | 6.03 | x 1 |
| TCP echo, streams, 64 of 1 KiB, server CPU | us | 4 | 0.75 | 0.50 |  |
| uvicorn (httptools), plain text, rate | 1/s | 9 | 1.25 | 2.50 |  |

## Every loop's figures

| row | unit | asyncio | uvloop | rloop | fastloop |
| --- | ---: | ---: | ---: | ---: | ---: |
| uvicorn (httptools), plain text, rate | 1/s | 8 | failed | 1 failed | 9 |

| row | unit | asyncio | fastloop |
| --- | ---: | ---: | ---: |
| two threads over one, tasks | times | 1.58 ±10 % | 1.02 ±8 % |
"""


def test_pages_quote_a_report(pages):
    report = pages / "RESULTS.md"
    report.write_text(REPORT)
    done = write_pages(pages, report)
    assert (done.returncode, done.stderr) == (0, "")
    lines = (pages / "README.md").read_text().splitlines()
    assert [line for line in lines if line.startswith("- **")] == [
        "- **TCP echo (1 KiB, CPU time of the server): 6.0 times asyncio, "
        "1.50 times uvloop**",
        "- **uvicorn (plain text, requests a second): 2.5 times asyncio, "
        "1.25 times uvloop**",
        "- **Streams (1 KiB, CPU time of the server): 0.5 times asyncio, "
        "0.75 times uvloop**",
    ]
    text = " ".join(lines)
    assert (
        "CPython 3.14, 2 CPUs. A row is one measurement. Against uvloop, "
        "fastloop is faster in 2 and slower in 1 of 3 rows. Inconclusive: the"
        in text
    )
    text = (pages / "docs/one-process-many-loops.md").read_text()
    assert "|---|---|---|\n| tasks | 1.58 | 1.02 |\n\n" in text


@pytest.mark.parametrize(
    ("left_out", "sentence"),
    [
        (
            "| TCP echo, streams",
            "the report has no ratios of echo_streams_64x1k",
        ),
        ("- Against", "the report does not say: places"),
        ("| two threads", "the report has no row of two threads"),
    ],
)
def test_a_page_whose_figures_are_missing_is_left(left_out, sentence, pages):
    report = pages / "RESULTS.md"
    report.write_text(REPORT.replace(left_out, "x"))
    done = write_pages(pages, report)
    assert done.returncode == 2
    assert sentence in done.stderr
    names = re.findall(r"(\S+) is left as it is", done.stderr)
    assert names
    for name in names:
        assert (pages / name).read_text() == (TOP / name).read_text()
