"""Draws the charts with matplotlib, as SVG that is good in light and dark.

What is drawn has the colours of the light palette; in the SVG they become
CSS variables, which a style sheet sets for both.
"""

from __future__ import annotations

import io
import re
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from .compare import figure
from .default_loop import USUAL
from .options import write_file
from .result import Metric, Result

__all__ = [
    "COLOURS",
    "STYLE",
    "THEMES",
    "label_right",
    "new_figure",
    "write_chart",
]

#: Metrics that have a chart, by kind of race.
_SHOWN = {"http": ("rate", "cpu"), "program": ("time", "cpu")}
#: Inches, of which SVG has 72 points.
_WIDTH, _LEFT, _RIGHT, _ROW = 3.75, 0.9, 0.62, 0.36

THEMES = ("light", "dark")
#: The colour of a name in each theme.
COLOURS = {
    "paper": ("#ffffff", "#0d1117"),
    "text": ("#1f2328", "#f0f6fc"),
    "faint": ("#59636e", "#9198a1"),
    "line": ("#d1d9e0", "#3d444d"),
    "asyncio": ("#aab2bb", "#656c76"),
    "uvloop": ("#d18616", "#d9963b"),
    "fastloop": ("#0969da", "#4493f8"),
    "other1": ("#8250df", "#ab7df8"),
    "other2": ("#1a7f37", "#3fb950"),
    "other3": ("#bf3989", "#db61a2"),
}


def _palette(column: int) -> str:
    each = (f"--{name}: {pair[column]};" for name, pair in COLOURS.items())
    return f":root {{ {' '.join(each)} }}"


STYLE = f"""
:root {{ color-scheme: light dark; }}
{_palette(0)}
@media (prefers-color-scheme: dark) {{ {_palette(1)} }}
svg text {{ font-family: system-ui, sans-serif !important; }}
"""


def _colour(name: str) -> str:
    return COLOURS[name][0]


def _colour_of(label: str, result: Result) -> str:
    if label in USUAL:
        return _colour(label)
    return _colour(f"other{result.labels.index(label) % 3 + 1}")


@contextmanager
def new_figure(
    width: float, height: float, theme: str = "light", **more: Any
) -> Iterator[Any]:
    """Make a figure of so many inches, drawn in the theme's colours."""
    import matplotlib
    from matplotlib.figure import Figure

    column = THEMES.index(theme)
    text, faint = COLOURS["text"][column], COLOURS["faint"][column]
    settings = {
        "svg.hashsalt": "fastloop",
        "font.size": 9,
        "text.color": text,
        "axes.labelcolor": text,
        "xtick.color": faint,
        "ytick.color": faint,
    }
    with matplotlib.rc_context(settings):
        yield Figure(figsize=(width, height), **more)


def _svg(drawn: Any) -> str:
    """Return the figure as an SVG element, whose texts are texts."""
    import matplotlib

    out = io.StringIO()
    unknown = dict.fromkeys(("Date", "Creator", "Format", "Type"))
    with matplotlib.rc_context({"svg.fonttype": "none"}):
        drawn.savefig(out, format="svg", transparent=True, metadata=unknown)
    text = out.getvalue()
    text = text[text.index("<svg") :]
    text = re.sub(r' (width|height)="[\d.]+pt"', "", text, count=2)
    text = re.sub(r'<g id="[^"]*"', "<g", text)
    for name, (light, _) in COLOURS.items():
        text = text.replace(light, f"var(--{name})")
    return text


def _axes(drawn: Any, x: float, y: float, width: float, height: float) -> Any:
    """Return axes without a frame at a place in inches, from below."""
    across, up = drawn.get_size_inches()
    place = (x / across, y / up, width / across, height / up)
    axes = drawn.add_axes(place, frameon=False)
    axes.tick_params(length=0)
    return axes


def _write(drawn: Any, x: float, y: float, text: str, **more: Any) -> None:
    """Write text; a $ in it starts no formula."""
    drawn.text(x, y, text, parse_math=False, **more)


def label_right(
    axes: Any, text: str, place: tuple[float, float], **more: Any
) -> None:
    """Write to the right of a place."""
    aside = {"xytext": (5, 0), "textcoords": "offset points", "va": "center"}
    axes.annotate(text, place, **aside, **more)


def _heading(axes: Any, title: str, right: str = "") -> None:
    """Write above the axes, from the edge of the chart on."""
    box = axes.get_position()
    drawn = axes.figure
    across, up = drawn.get_size_inches()
    y = box.y1 + 0.1 / up
    left = box.x0 - _LEFT / across
    _write(drawn, left, y, title, size=10.5, weight="bold")
    edge = left + _WIDTH / across
    _write(drawn, edge, y, right, color=_colour("faint"), ha="right")


def _bars(drawn: Any, x: float, y: float, result: Result, of: Metric) -> None:
    """Draw a metric: a bar is the mean, a dot is one run."""
    count = len(result.labels)
    width = _WIDTH - _LEFT - _RIGHT
    axes = _axes(drawn, x + _LEFT, y, width, _ROW * count)
    unit = f", {of['unit']}" if of["unit"] else ""
    title = f"{of['title']}{unit}"
    better = "longer" if of["better"] == "more" else "shorter"
    _heading(axes, title[0].upper() + title[1:], f"{better} is better")
    every = [result.figures(label, of["key"]) for label in result.labels]
    top = max((max(found) for found in every if found), default=0)
    axes.set(xlim=(0, top or 1), ylim=(count - 0.5, -0.5), xticks=[])
    axes.set_yticks(range(count), result.labels)
    for row, (label, runs) in enumerate(
        zip(result.labels, every, strict=True)
    ):
        mean = result.mean(label, of["key"])
        own = "bold" if label == result.candidate else "normal"
        axes.get_yticklabels()[row].set(color=_colour("text"), weight=own)
        colour = _colour_of(label, result)
        axes.barh(row, mean or 0, 0.66, color=colour, clip_on=False)
        axes.scatter(
            runs,
            [row + (n % 4 - 1.5) / 10 for n in range(len(runs))],
            s=5,
            color=_colour("text"),
            alpha=0.5,
            linewidths=0,
            clip_on=False,
            zorder=3,
        )
        end = max([mean or 0, *runs])
        label_right(axes, figure(mean), (end, row), weight=own)


def write_chart(result: Result, path: str) -> None:
    """Write one file for a README: two metrics, .svg or .png."""
    metrics = [result.metric(k) for k in _SHOWN[result.data["kind"]]]
    machine = result.data["machine"]
    python = machine["python"].split(" ")[0]
    where = (
        f"CPython {python}, {machine['cpu']}, {machine['date']}; a bar is the "
        f"geometric mean of {result.rounds}, a dot one run"
    )
    height, gap = _ROW * len(result.labels), 0.4
    across, up = 2 * _WIDTH + gap, height + 1.1
    with new_figure(across, up) as drawn:
        for place, metric in enumerate(metrics):
            _bars(drawn, place * (_WIDTH + gap), 0.32, result, metric)
        name = result.data["what"]
        _write(drawn, 0, 1 - 0.22 / up, name, size=13, weight="bold")
        _write(drawn, 0, 0.08 / up, where, color=_colour("faint"))
        if path.endswith(".png"):
            paper = {"facecolor": _colour("paper"), "pad_inches": 0.15}
            out = io.BytesIO()
            drawn.savefig(
                out, format="png", dpi=200, bbox_inches="tight", **paper
            )
            write_file(path, out.getvalue())
            return
        svg = _svg(drawn)
    size = f'width="{across * 96:.0f}" height="{up * 96:.0f}"'
    svg = svg.replace("<svg", f"<svg {size}", 1)
    head, end, rest = svg.partition(">")
    write_file(path, f"{head}{end}<style>{STYLE}</style>{rest}")
