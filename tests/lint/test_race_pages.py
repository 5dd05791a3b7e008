"""The pages of the race agree, and say what was measured."""

import json
import re
import subprocess
import sys

import pytest

from fastloop.cli.compare import compare

from .conftest import BENCHMARKS, TOP, asked

SUMMARY = """
import sys
sys.path.insert(0, sys.argv[1])
from harness import markdown
def row(key, own):
    figures = {"asyncio": 0.5, "uvloop": 1.0, "rloop": 1.25, "fastloop": own}
    noise = (0.3, 1, 3) if key == "spread" else (0.999, 1, 1.001)
    return {
        "title": key, "unit": "1/s", "better": "more", "reach": "",
        "aside": key == "unvisited", "judge": "median",
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
rows = [row("first", 1.5), row("even", 1.24), row("behind", 1.1)]
rows += [row("slower", 0.9), row("spread", 2), row("unvisited", 4)]
print(*markdown.summary(rows), sep="\\n")
"""


def test_a_report_counts_places_and_names_the_slower_rows():
    lines = asked(SUMMARY).splitlines()
    # Places are counted in all rows, so they add up.
    assert lines[:3] == [
        "- Against asyncio, fastloop is faster in 4 and inconclusive in 1 of "
        "5 rows.",
        "- Against uvloop, fastloop is faster in 3, slower in 1 and "
        "inconclusive in 1 of 5 rows.",
        "- Against the best peer of a row, which is whichever of the 3 others "
        "did best there, fastloop is first in 1, behind in 2, even (within "
        "3%) in 1 and inconclusive in 1 of 5 rows.",
    ]
    assert lines[-4:] == ["", "Rows slower than uvloop:", "", "- slower"]


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
    if name == "zuvloop":
        return {"error": "OSError: no"}
    if name in ("asyncio", "fastloop"):
        return {"version": "1"}
    return {"error": f"ModuleNotFoundError: No module named '{name}'"}
run.schedule.probe = probe
print(*run.find_loops("asyncio,rloop,zuvloop,rsloop", "python", "; hint")[0])
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
        "without zuvloop: OSError: no\n"
        "not installed here: rloop, rsloop; hint\n"
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
    assert line.split(" | ")[2:8] == [
        "100 ±5 %",
        "2.00",
        "4.00",
        "",  # over zuvloop
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
    if found and found.high_95 < 100:
        interval = f"({found.low_95:.2f} to {found.high_95:.2f})"
        assert over == f"{found.ratio:.2f} {interval}"


def test_a_loop_that_failed_in_the_end_has_no_place():
    figures = json.dumps([[50.0, 51.0], [100.0] * 5])
    assert asked(PLACES, figures, "crash").startswith("not measured\n")


COUNTED = """
import json
import sys
sys.path.insert(0, sys.argv[1])
from harness import markdown
own, peer, kind = json.loads(sys.argv[2])
counts = {loop: {kind: n} for loop, n in (("fastloop", own), ("rloop", peer))}
row = {"aside": False, "counts": counts}
print(markdown.count_cell(row, kind), markdown.count_place(row, kind))
print(*markdown.count_sentences([row]))
"""


@pytest.mark.parametrize(
    ("own", "peer", "kind", "cell", "place"),
    [
        (2_038, 3_106, "instructions", "2,038 (rloop 3,106)", "first"),
        (3_106, 2_038, "instructions", "3,106 (rloop 2,038)", "behind"),
        (1_000, 1_019, "instructions", "1,000 (rloop 1,019)", "even"),
        (2.06, 2.02, "calls", "2.06 (rloop 2.02)", "even"),
        (2.12, 2.02, "calls", "2.12 (rloop 2.02)", "behind"),
    ],
)
def test_a_row_has_a_place_by_each_count(own, peer, kind, cell, place):
    shown, sentence = asked(COUNTED, json.dumps([own, peer, kind])).split(
        "\n", 1
    )
    assert shown == f"{cell} {place}"
    name = {"calls": "system calls"}.get(kind, "user instructions")
    assert sentence.strip() == (
        f"By {name} for an operation, fastloop is {place} in 1 of 1 rows."
    )


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


QUOTING = (
    "README.md",
    "docs/index.md",
    "docs/performance.md",
    "docs/one-process-many-loops.md",
)


@pytest.mark.parametrize("name", QUOTING)
def test_a_page_has_a_section_for_the_race(name):
    text = (TOP / name).read_text()
    assert text.count("<!-- race: begin -->\n") == 1
    assert text.count("<!-- race: end -->\n") == 1


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

Rows slower than uvloop:

- pipe

| row | unit | fastloop | over uvloop | over asyncio | over zuvloop \
| best peer | over the best | place |
| --- | ---: | ---: | ---: | ---: | ---: | ---: | ---: | ---: |
ROWS| pipe | us | 4 ±5 % | 0.75 | 0.50 | 0.70 | x 2 | 0.60 (0.5 to 0.7) \
| **behind** |

## Every loop's figures

| row | unit | asyncio | uvloop | zuvloop | fastloop |
| --- | ---: | ---: | ---: | ---: | ---: |
FIGURES| pipe | us | 2 | 3 (1 to 4) | 1 failed | 4 ±5 % |

| row | unit | asyncio | fastloop |
| --- | ---: | ---: | ---: |
| two threads over one, tasks | times | 1.58 ±10 % | 1.02 ±8 % |
"""
#: The title of each row that pages name, and its ratio over asyncio.
NAMED = {
    "TCP echo, Protocol, 64 of 1 KiB, server CPU": 1.2,
    "TCP echo, streams, 64 of 1 KiB, server CPU": 1.5,
    "TCP echo, TLS, 64 of 1 KiB, server CPU": 1.7,
    "uvicorn (httptools), plain text, rate": 1.9,
    "aiohttp server, plain text, rate": 1.4,
    "FastAPI, an endpoint in a thread, rate": 1.36,
    "FastAPI, a row by SQLAlchemy and asyncpg, rate": 1.12,
    "FastAPI under uvicorn, httpx, 16 connections": 1.09,
    "run_in_executor, 64 in flight": 6.0,
    "an idle connection, TLS": 9.5,
    "sock_recv + sock_sendall, 64 of 1 KiB, server CPU": 2.5,
    "redis-py, GET, 32 clients": 1.6,
    "gather of 1,000": 1.9,
}


def report_of(named):
    """Return a report with these rows."""
    rows = "".join(
        f"| {title} | us | 4 | 1.25 | {over} |  | x 1 | 0.9 (0.8 to 1) | |\n"
        for title, over in named.items()
    )
    figures = "".join(f"| {title} | us | 8 | 5 |  | 4 |\n" for title in named)
    return REPORT.replace("ROWS", rows).replace("FIGURES", figures)


def test_pages_quote_a_report(pages):
    report = pages / "RESULTS.md"
    report.write_text(report_of(NAMED))
    done = write_pages(pages, report)
    assert (done.returncode, done.stderr) == (0, "")
    lines = (pages / "README.md").read_text().splitlines()
    for line in (
        "| An idle TLS connection (memory) "
        "| us | 4 | 8 (9.5) | 5 (1.25) |  | x (0.9) |",
        # A row in which fastloop is slower, with a loop that failed there.
        "| pipe | us | 4 | 2 (0.50) | 3 (0.75) | failed | x (0.60) |",
    ):
        assert line in lines
    text = " ".join(lines)
    assert "1.2 to 1.9 times asyncio, FastAPI 1.1 to 1.4 times." in text
    assert "CPython 3.14, 2 CPUs; two threads on" in text
    assert "faster in 2 and slower in 1 of 3 rows. Inconclusive: the" in text
    assert "Against the best peer" not in text
    text = " ".join((pages / "docs/performance.md").read_text().split())
    assert "| TLS echo | us | 4 | 8 (1.7) | 5 (1.25) | | x (0.9) |" in text
    assert "| pipe |" not in text
    assert "Against the best peer of a row, fastloop is" in text
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
    report.write_text(report_of(NAMED).replace(left_out, "x"))
    done = write_pages(pages, report)
    assert done.returncode == 2
    assert sentence in done.stderr
    names = re.findall(r"(\S+) is left as it is", done.stderr)
    assert names
    for name in names:
        assert (pages / name).read_text() == (TOP / name).read_text()


def test_a_page_without_its_section_is_left_as_it_is(pages):
    (pages / "README.md").write_text("nothing\n")
    done = write_pages(pages, BENCHMARKS / "RESULTS.md")
    assert done.returncode == 2
    assert "README.md is left as it is: it has no section" in done.stderr
    assert (pages / "README.md").read_text() == "nothing\n"
