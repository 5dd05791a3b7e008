"""Draws the ratios as bars, one group of bars a row, into a PNG or SVG.

matplotlib is asked for only when a plot is, and is no need otherwise.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

from harness.case import Row
from harness.loops import LOOPS
from harness.report import Report

COLOURS = dict(
    zip(
        LOOPS,
        (
            "#9a9a9a",
            "#4c78a8",
            "#72b7b2",
            "#b279a2",
            "#eeca3b",
            "#9d755d",
            "#bab0ac",
            "#e45756",
            "#2f2f2f",
            "#4d4d4d",
            "#6b6b6b",
            "#808080",
        ),
        strict=True,
    )
)
SUFFIXES = (".png", ".svg")


class PlotError(Exception):
    """A plot cannot be drawn; the text says why and what to do."""


def usable(files: list[str]) -> list[str]:
    """Return the `files` that can be drawn: all of them, or none where
    matplotlib is missing, which is said on stderr.

    Raises PlotError for a name that is neither PNG nor SVG.
    """
    for name in files:
        if Path(name).suffix.lower() not in SUFFIXES:
            raise PlotError(f"{name}: a plot ends in .png or .svg")
    try:
        import matplotlib  # noqa: F401
    except ImportError as error:
        print(
            f"without a plot ({error}): python -m pip install matplotlib",
            file=sys.stderr,
        )
        return []
    return files


def draw(report: Report, files: list[str], title: str) -> None:
    """Write the ratios over uvloop, or over asyncio without it, to `files`.

    Raises PlotError when there is nothing to compare.
    """
    base = next(
        (name for name in ("uvloop", "asyncio") if name in report.loops), ""
    )
    others = [name for name in report.loops if name != base]
    rows = [row for row in _rows(report) if _drawn(report, row, others, base)]
    if not base or not rows:
        raise PlotError("nothing to plot: no loop to compare with another")
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    high = 1.2 + len(rows) * (0.12 + 0.13 * len(others))
    figure, axes = pyplot.subplots(figsize=(10, high), layout="constrained")
    for place, loop in enumerate(others):
        _draw_loop(axes, report, rows, loop, base, place, len(others))
    _finish(axes, rows, base, title)
    figure.legend(loc="outside lower center", ncols=len(others), fontsize=7)
    for name in files:
        figure.savefig(name, dpi=120)
    pyplot.close(figure)


def _rows(report: Report) -> list[Row]:
    return [row for case in report.cases for row in case.rows]


def _drawn(report: Report, row: Row, loops: list[str], base: str) -> bool:
    return any(report.ratio(row, loop, base) for loop in loops)


def _draw_loop(
    axes: Any,
    report: Report,
    rows: list[Row],
    loop: str,
    base: str,
    place: int,
    count: int,
) -> None:
    ratios = [report.ratio(row, loop, base) for row in rows]
    thick = 0.84 / count
    offset = (place - (count - 1) / 2) * thick
    known = [(y, value) for y, value in enumerate(ratios) if value]
    axes.barh(
        [y + offset for y, _ in known],
        # From 1 on, to the left or to the right.
        [value - 1 for _, value in known],
        height=thick,
        left=1,
        color=COLOURS[loop],
        label=loop,
    )
    for y, value in known:
        axes.annotate(
            f"{value:.2f}",
            (value, y + offset),
            xytext=(2 if value >= 1 else -2, 0),
            textcoords="offset points",
            ha="left" if value >= 1 else "right",
            va="center",
            fontsize=5.5,
        )


def _finish(axes: Any, rows: list[Row], base: str, title: str) -> None:
    axes.set_xscale("log")
    ticks = [0.02, 0.05, 0.1, 0.2, 0.5, 1, 2, 5, 10, 20, 50, 100]
    low, high = axes.get_xlim()
    axes.set_xlim(low / 1.15, high * 1.15)
    low, high = axes.get_xlim()
    shown = [tick for tick in ticks if low <= tick <= high]
    axes.set_xticks(shown, [f"{tick:g}" for tick in shown])
    axes.minorticks_off()
    axes.axvline(1, color="black", linewidth=0.8)
    axes.set_yticks(range(len(rows)), [row.title for row in rows], fontsize=7)
    axes.set_ylim(len(rows) - 0.4, -0.6)
    axes.set_xlabel(f"times as good as {base} (further right is better)")
    axes.set_title(title, fontsize=9)
    axes.grid(axis="x", linewidth=0.3)
