"""The figures of a run as rows of JSON, and what they say.

A ratio is always "times as good as the other": above 1 is faster, smaller
or more a second, whichever the row counts.
"""

from __future__ import annotations

import statistics
from collections.abc import Iterable, Sequence
from typing import TextIO

from fastloop.cli.compare import Comparison, mean, of_ratios
from fastloop.cli.compare import figure as in_digits
from harness import schedule
from harness.case import Case, Row
from harness.loops import LOOPS
from harness.schedule import Results, Settings

# What is compared with.
BASES = ("uvloop", "asyncio")


def judged(row: Row, figures: list[dict]) -> float | None:
    """Return the one figure that stands for a row's repetitions."""
    if not figures:
        return None
    each = [figure["figure"] for figure in figures]
    return min(each) if row.judge == "least" else statistics.median(each)


def collect(
    cases: list[Case], results: Results, settings: Settings, facts: dict
) -> dict:
    """Return everything a later reader needs, raw figures included."""
    rows = []
    for case in cases:
        for row in case.rows:
            found = {
                "case": case.name,
                "group": case.group,
                "row": row.key,
                "title": row.title,
                "unit": row.unit,
                "better": row.better,
                "judge": row.judge,
                "aside": row.aside,
                "seconds": results.seconds.get(case.name),
                "loops": {},
            }
            for loop in LOOPS:
                figures = results.figures.get((row.key, loop), [])
                error = results.errors.get((case.name, loop))
                if figures or error is not None:
                    found["loops"][loop] = {
                        "figure": judged(row, figures),
                        "repetitions": figures,
                        "error": error,
                    }
            rows.append(found)
    return {
        "settings": vars(settings),
        "machine": facts,
        "cut": results.cut,
        "rows": rows,
    }


# -- one row ------------------------------------------------------------------


def figure(row: dict, loop: str) -> float | None:
    """Return what stands for `loop` in a row."""
    return row["loops"].get(loop, {}).get("figure")


def ratios(row: dict, loop: str, base: str) -> list[float]:
    """Return how many times as good as `base` the `loop` is, by repetition."""
    own, other = (
        row["loops"].get(name, {}).get("repetitions", ())
        for name in (loop, base)
    )
    return schedule.ratios(own, other, row["better"])


def ratio(row: dict, loop: str, base: str) -> float | None:
    """Return how many times as good as `base` the `loop` is: the mean."""
    return mean(ratios(row, loop, base)) or None


def repetitions(row: dict, loop: str) -> list[float]:
    """Return the figures of `loop` in a row, in the order of their time."""
    found = row["loops"].get(loop, {}).get("repetitions", ())
    return [one["figure"] for one in found]


def against(row: dict, peer: str) -> Comparison | None:
    """Compare fastloop with `peer`, repetition by repetition.

    None where there are fewer than two repetitions of both.
    """
    return of_ratios(ratios(row, "fastloop", peer))


def is_measured(row: dict, loop: str) -> bool:
    """Say whether `loop` has a figure and did not fail."""
    found = row["loops"].get(loop, {})
    return found.get("figure") is not None and not found.get("error")


def best(row: dict, loops: Iterable[str]) -> str:
    """Return the best of `loops` in a row, "" where none was measured.

    They are compared by their ratios over fastloop, because those are of the
    same time.  One that failed is not: few figures may have been lucky.
    """
    found = [loop for loop in loops if is_measured(row, loop)]
    if not found:
        return ""
    if figure(row, "fastloop"):
        return max(found, key=lambda loop: ratio(row, loop, "fastloop") or 0.0)
    pick = max if row["better"] == "more" else min
    return pick(found, key=lambda loop: figure(row, loop))


def short(value: float | None) -> str:
    """Return `value` with three digits that matter."""
    return "" if value is None else in_digits(value)


def times(value: float | None) -> str:
    """Return a ratio as text."""
    return "" if value is None else f"{value:.2f}"


# -- tables -------------------------------------------------------------------


def table(lines: Sequence[Sequence[str]], aligned: bool = False) -> list[str]:
    """Return the lines of a table, its head first and that column left."""
    rule = ["---", *["---:"] * (len(lines[0]) - 1)]
    if aligned:
        first, *rest = (
            max(map(len, column)) for column in zip(*lines, strict=True)
        )
        lines = [
            [line[0].ljust(first), *map(str.rjust, line[1:], rest)]
            for line in lines
        ]
        rule = ["-" * first, *("-" * (width - 1) + ":" for width in rest)]
    cells = [lines[0], rule, *lines[1:]]
    return [f"| {' | '.join(each)} |" for each in cells]


def write(data: dict, out: TextIO) -> None:
    """Write all tables, and what failed, to `out`."""
    rows = data["rows"]
    loops = [loop for loop in LOOPS if any(loop in r["loops"] for r in rows)]
    shown = [(["row", "unit", *loops], _figures(rows, loops))]
    for base in BASES:
        others = [loop for loop in loops if loop != base]
        head = [f"times as good as {base}", *others]
        shown.append((head, _ratios(rows, others, base)))
    shown = [(head, lines) for head, lines in shown if lines]
    texts = ["\n".join(table([head, *rest], True)) for head, rest in shown]
    out.write("\n\n".join(texts) + "\n")
    failed = {
        (row["case"], loop): found["error"]
        for row in rows
        for loop, found in row["loops"].items()
        if found["error"] is not None
    }
    for (name, loop), error in failed.items():
        out.write(f"\n{name} on {loop} failed: {error}")
    if data["cut"]:
        out.write(f"\nNot complete: {data['cut']}.")
        if data["cut"].startswith("time was up"):
            out.write(" This is normal on a busy machine.")
    out.write("\n")


def _figures(rows: list[dict], loops: list[str]) -> list[list[str]]:
    lines = []
    for row in rows:
        cells = []
        for loop in loops:
            error = row["loops"].get(loop, {}).get("error")
            text = short(figure(row, loop))
            cells.append(f"{text} error".strip() if error else text)
        if any(cells):
            lines.append([row["title"], row["unit"], *cells])
    return lines


def _ratios(rows: list[dict], loops: list[str], base: str) -> list[list[str]]:
    lines = []
    for row in rows:
        cells = [times(ratio(row, loop, base)) for loop in loops]
        if any(cells):
            lines.append([row["title"], *cells])
    return lines
