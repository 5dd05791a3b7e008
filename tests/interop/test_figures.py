"""A ratio on a page divides two of its figures, or lies in its interval."""

from __future__ import annotations

import os
import re
import subprocess
import sys

import pytest
from test_docs import ROOT

PAGES = "README.md docs/performance.md".split()
#: README.md has figures alone, with the best peer.
LEAST = {"README.md": 6, "docs/performance.md": 30}
FIGURE = r"([\d.,]+)"
#: A loop's figure, with the name of the best peer before it, and the ratio.
BESIDE = re.compile(rf"(?:[\w-]+ )?{FIGURE} \({FIGURE}\)")
#: A mean ratio and its interval.
MEAN = re.compile(rf"{FIGURE} \({FIGURE} to {FIGURE}\)")
#: Operations a second, as docs/performance.md's gain.py prints them.
PRINTED = re.compile(
    rf"asyncio +{FIGURE}/s, fastloop +{FIGURE}/s, ([\d.]+) times"
)
OVER = {f"over {loop}": loop for loop in ("uvloop", "asyncio", "zuvloop")}
NO_PEERS = "row", "fastloop"

#: Writes a run in which chance is all that differs.
RUN = """
import random, sys
from pathlib import Path
from harness import case, pages, report

chance = random.Random(1)
rows = sum(map(report.new_rows, case.all_cases().values()), [])
for row in rows:
    for loop in ("asyncio", "uvloop", "zuvloop", "rloop", "fastloop"):
        for _ in range(5):
            samples = [chance.uniform(1, 3000) for _ in range(3)]
            figure = {"figure": sorted(samples)[1], "samples": samples}
            report.keep(row, loop, {"figures": {row["row"]: figure}})
    if chance.random() < 0.2:
        report.keep(row, "zuvloop", {"error": "it hung"})
machine = {"without": {}, "without_loops": {}, "packages": {}, "cpus": [0, 1]}
machine |= {"load_before": [], "loops": rows[0]["loops"], "python": "3.14.8"}
machine |= dict.fromkeys("date cpu system libc openssl".split(), "a")
settings = {"repeat": 5, "scale": 1}
data = {"rows": rows, "machine": machine, "settings": settings, "cut": ""}
folder = Path(sys.argv[1])
pages.write(folder, data)
(folder / "RESULTS.md").write_text(text := pages.text(data))
for note in report.NOTES.values():
    is_raced = not note.startswith(("blazio", "rsloop"))
    assert (f": {note}\\n" in text) == is_raced, note
"""


def tables(path):
    """Each row of the tables of a page, by the names of its columns."""
    for block in re.findall(r"(?:^\|.*\n)+", path.read_text("utf-8"), re.M):
        head, _, *rows = (
            [cell.strip() for cell in line.strip("|").split("|")]
            for line in block.splitlines()
        )
        yield from (dict(zip(head, row, strict=True)) for row in rows)


def number(text):
    return float(text.split(" ")[0].replace(",", ""))


def is_more(unit):
    return unit.endswith(("/s", "times"))


def divides(shown, own, base, unit="1/s"):
    """Whether own is so many times as good as base."""
    ratio = own / base if is_more(unit) else base / own
    digits = len(shown.partition(".")[2])
    return abs(number(shown) - ratio) < 0.51 * 10**-digits


def is_best(own, cells, unit):
    """Whether it did not fail, and no cell of a row has a better figure."""
    best = max if is_more(unit) else min
    rest = [number(cell) for cell in cells if cell and "failed" not in cell]
    return "failed" not in own and number(own) == best(number(own), *rest)


def beside(path):
    """Each ratio that stands in a table beside its figure, and best peer."""
    for row in tables(path):
        unit = row.get("unit", next(iter(row.values())))
        best = (
            row.get("best other") or row.get("best peer", "").partition(" ")[2]
        )
        if best and "asyncio" in row:
            cells = row["asyncio"], row["uvloop"]
            yield row, is_best(best, cells, unit)
        own = row.get("unit") and row.get("fastloop")
        for cell in row.values() if own else ():
            if found := BESIDE.fullmatch(cell):
                base, shown = number(found[1]), found[2]
                yield row, divides(shown, number(own), base, unit)


def in_results(path):
    """Each ratio and best peer of RESULTS.md, whose figures are in tables of
    their own."""
    rows = [row for row in tables(path) if "unit" in row]
    figures = {row["row"]: row for row in rows if "place" not in row}
    for row in rows:
        if "place" not in row:
            continue
        found = {**figures[row["row"]]}
        unit = found.pop("unit")
        peer, _, over_uvloop = row["best peer"].partition(" ")
        pairs = [(row[key], "fastloop", loop) for key, loop in OVER.items()]
        pairs += [(over_uvloop, peer, "uvloop")]
        if mean := MEAN.fullmatch(row["over the best"]):
            ratio, low, high = map(number, mean.groups())
            yield row, low <= ratio <= high
        else:
            pairs += [(row["over the best"], "fastloop", peer)]
        for shown, *loops in pairs:
            if shown:
                own, base = (number(found[loop]) for loop in loops)
                yield row, divides(shown, own, base, unit)
        peers = [found[loop] for loop in found if loop not in NO_PEERS]
        yield row, not peer or is_best(found[peer], peers, unit)


def listed(path):
    """Each row that RESULTS.md lists with a ratio; its table has the same."""
    rows = [row for row in tables(path) if "place" in row]
    cells = {row["row"]: row["over the best"] for row in rows}
    said = re.findall(r"^- (.*?): ([\d.]+.*) of \S+$", path.read_text(), re.M)
    for title, ratio in said:
        yield title, cells[title] == ratio


def wrong(found, least):
    """Those that are wrong; there have to be so many at least."""
    found = list(found)
    assert len(found) >= least
    return [row for row, is_right in found if not is_right]


@pytest.mark.parametrize("page", PAGES)
def test_a_ratio_divides_and_a_best_peer_has_the_best_figure(page):
    assert wrong(beside(ROOT / page), LEAST[page]) == []


def test_a_ratio_of_the_results_divides_two_figures_or_is_in_its_interval():
    path = ROOT / "benchmarks" / "RESULTS.md"
    assert wrong(in_results(path), least=300) == []
    assert wrong(listed(path), least=1) == []


def test_the_ratios_that_a_program_prints():
    found = PRINTED.findall((ROOT / "docs" / "performance.md").read_text())
    assert len(found) == 3
    for base, own, shown in found:
        assert divides(shown, number(own), number(base))


def test_what_a_run_writes_agrees_with_its_figures(tmp_path):
    """Samples of the same time have other ratios here than the figures."""
    (tmp_path / "docs").mkdir()
    for page in PAGES:
        (tmp_path / page).write_bytes((ROOT / page).read_bytes())
    env = {"PYTHONPATH": f"{ROOT}{os.pathsep}{ROOT / 'benchmarks'}"}
    program = [sys.executable, "-c", RUN, str(tmp_path)]
    subprocess.run(program, env=os.environ | env, check=True)
    for page in PAGES:
        before, after = (root / page for root in (ROOT, tmp_path))
        assert before.read_text() != after.read_text()
        assert wrong(beside(after), LEAST[page]) == []
    assert wrong(in_results(tmp_path / "RESULTS.md"), least=300) == []
    assert wrong(listed(tmp_path / "RESULTS.md"), least=1) == []
