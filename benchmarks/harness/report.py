"""Makes tables and JSON of the figures.

A ratio is always "times as good as the other": above 1 is faster, smaller
or more a second, whichever the row counts.  How late timers come has no
ratio, for a figure of 0 is the aim.
"""

from __future__ import annotations

import statistics
from typing import TextIO

from harness.case import Case, Row
from harness.loops import LOOPS
from harness.schedule import Results, Settings

# What is compared with; c-uv says how near the floor the TCP rows are.
BASES = ("uvloop", "asyncio", "c-uv")


def judged(row: Row, figures: list[dict], judge: str = "") -> float | None:
    """Return the one figure that stands for a row's repetitions.

    `judge` "least" takes the best single sample of all, for a machine that
    does other work as well; otherwise the row says how it is judged.
    """
    if not figures:
        return None
    each = [figure["figure"] for figure in figures]
    if judge == "least" and row.better != "near 0":
        if row.better == "more":
            return max(each)
        return min(figure["least"] for figure in figures)
    return min(each) if row.judge == "least" else statistics.median(each)


def ratio(row: Row, own: float | None, base: float | None) -> float | None:
    """Return how many times as good `own` is as `base`."""
    if row.better == "near 0" or not own or not base:
        return None
    return own / base if row.better == "more" else base / own


def short(value: float | None) -> str:
    """Return `value` with three digits that matter."""
    if value is None:
        return ""
    size = abs(value)
    if size >= 1_000:
        return f"{value:,.0f}"
    return f"{value:.{0 if size >= 100 else 1 if size >= 10 else 2}f}"


class Report:
    """The figures of a run, seen by row and loop."""

    def __init__(
        self, cases: list[Case], results: Results, judge: str = ""
    ) -> None:
        self.cases = cases
        self.results = results
        seen = {loop for _, loop in results.figures}
        seen |= {loop for _, loop in results.errors}
        self.loops = [loop for loop in LOOPS if loop in seen]
        self.values = {
            (row.key, loop): judged(
                row, results.figures.get((row.key, loop), []), judge
            )
            for case in cases
            for row in case.rows
            for loop in self.loops
        }

    def ratio(self, row: Row, loop: str, base: str) -> float | None:
        """Return how many times as good as `base` the `loop` is."""
        return ratio(
            row,
            self.values.get((row.key, loop)),
            self.values.get((row.key, base)),
        )

    def _cell(self, case: Case, row: Row, loop: str) -> str:
        text = short(self.values[row.key, loop])
        if (case.name, loop) in self.results.errors:
            return f"{text} error".strip()
        return text

    def _figures(self) -> list[list[str]]:
        lines = [["row", "unit", *self.loops]]
        for case in self.cases:
            for row in case.rows:
                cells = [self._cell(case, row, loop) for loop in self.loops]
                if any(cells):
                    lines.append([row.title, row.unit, *cells])
        return lines

    def _ratios(self, base: str) -> list[list[str]]:
        others = [loop for loop in self.loops if loop != base]
        lines = [[f"times as good as {base}", *others]]
        for case in self.cases:
            for row in case.rows:
                cells = [self.ratio(row, loop, base) for loop in others]
                if any(cells):
                    shown = [f"{c:.2f}" if c else "" for c in cells]
                    lines.append([row.title, *shown])
        return lines

    def write(self, out: TextIO) -> None:
        """Write all tables, and what failed, to `out`."""
        _write_table(out, self._figures())
        for base in BASES:
            lines = self._ratios(base)
            if len(lines) > 1:
                out.write("\n")
                _write_table(out, lines)
        for (name, loop), error in self.results.errors.items():
            out.write(f"\n{name} on {loop} failed: {error}")
        if self.results.cut:
            out.write(f"\nNot complete: {self.results.cut}.")
        out.write("\n")

    def to_json(self, settings: Settings, facts: dict) -> dict:
        """Return everything a later reader needs, raw figures included."""
        rows = []
        for case in self.cases:
            for row in case.rows:
                rows.append(
                    {
                        "case": case.name,
                        "group": case.group,
                        "row": row.key,
                        "title": row.title,
                        "unit": row.unit,
                        "better": row.better,
                        "judge": row.judge,
                        "reach": row.reach,
                        "aside": row.aside,
                        "seconds": self.results.seconds.get(case.name),
                        "loops": self._row_json(case, row),
                    }
                )
        return {
            "settings": vars(settings),
            "machine": facts,
            "cut": self.results.cut,
            "rows": rows,
        }

    def _row_json(self, case: Case, row: Row) -> dict:
        found = {}
        for loop in self.loops:
            figures = self.results.figures.get((row.key, loop), [])
            error = self.results.errors.get((case.name, loop))
            if not figures and error is None:
                continue
            found[loop] = {
                "figure": self.values[row.key, loop],
                "over_uvloop": self.ratio(row, loop, "uvloop"),
                "over_asyncio": self.ratio(row, loop, "asyncio"),
                "over_c_uv": self.ratio(row, loop, "c-uv"),
                "repetitions": figures,
                "error": error,
            }
        return found


def _write_table(out: TextIO, lines: list[list[str]]) -> None:
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    rule = [
        "-" * width if not place else "-" * (width - 1) + ":"
        for place, width in enumerate(widths)
    ]
    for line in (lines[0], rule, *lines[1:]):
        cells = [
            cell.rjust(width) if place else cell.ljust(width)
            for place, (cell, width) in enumerate(
                zip(line, widths, strict=True)
            )
        ]
        out.write(f"| {' | '.join(cells)} |\n")
