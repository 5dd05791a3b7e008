"""Draws how many times as good as one loop others are, with matplotlib.

What is drawn has the colours of the light palette.  In an SVG that is for any
page they become CSS variables, which a style sheet sets for light and dark.
"""

from __future__ import annotations

import io
import re
from textwrap import shorten
from typing import Any

from .commands import Refused
from .options import write_file
from .result import Result

__all__ = ["THEMES", "Bars", "draw", "write_chart"]

#: Inches of a bar, and of a row's bars with what is between rows.
_BAR, _APART = 0.25, 0.2
_WIDE = 8

THEMES = ("light", "dark")
#: The colour of a name in each theme.
_COLOURS = {
    "paper": ("#ffffff", "#0d1117"),
    "text": ("#1f2328", "#f0f6fc"),
    "faint": ("#59636e", "#9198a1"),
    "asyncio": ("#aab2bb", "#656c76"),
    "other": ("#d18616", "#d9963b"),
    "fastloop": ("#0969da", "#4493f8"),
}
#: The title of a row, and its bars: a loop, how many times as good it is, and
#: what is written at its end.
Bars = tuple[str, list[tuple[str, float, str]]]


def _palette(column: int) -> str:
    each = (f"--{name}: {pair[column]};" for name, pair in _COLOURS.items())
    return f":root {{ {' '.join(each)} }}"


_STYLE = f"""<style>
:root {{ color-scheme: light dark; }}
{_palette(0)}
@media (prefers-color-scheme: dark) {{ {_palette(1)} }}
</style>"""


def _colour(name: str) -> str:
    return _COLOURS[name][0]


def draw(
    rows: list[Bars],
    title: str,
    base: str,
    caption: str,
    path: str,
    theme: str = "",
) -> None:
    """Write a chart of ratios over base, .svg or .png.

    A theme is that of an SVG for one kind of page.
    """
    import matplotlib
    from matplotlib.figure import Figure

    settings = {
        "font.size": 9,
        "svg.hashsalt": "fastloop",
        "svg.fonttype": "none",  # texts are texts
        "text.color": _colour("text"),
        "ytick.labelcolor": _colour("text"),
    }
    most = max(len(bars) for _, bars in rows)
    high = 1.1 + len(rows) * (most * _BAR + _APART)
    out = io.BytesIO()
    with matplotlib.rc_context(settings):
        drawn = Figure(figsize=(_WIDE, high), layout="constrained")
        _draw_bars(drawn.subplots(), rows, title, base)
        drawn.supxlabel(caption, size=8, color=_colour("faint"))
        if path.endswith(".png"):
            drawn.savefig(
                out, format="png", dpi=150, facecolor=_colour("paper")
            )
            write_file(path, out.getvalue())
            return
        unknown = dict.fromkeys(("Date", "Creator", "Format", "Type"))
        drawn.savefig(out, format="svg", transparent=True, metadata=unknown)
    svg = out.getvalue().decode()
    write_file(path, _in_theme(svg[svg.index("<svg") :], theme))


def _in_theme(svg: str, theme: str) -> str:
    for name, pair in _COLOURS.items():
        colour = pair[THEMES.index(theme)] if theme else f"var(--{name})"
        svg = svg.replace(pair[0], colour)
    svg = re.sub(r"'DejaVu Sans'[^;\"]*", "system-ui, sans-serif", svg)
    return svg if theme else svg.replace(">", f">{_STYLE}", 1)


def _draw_bars(axes: Any, rows: list[Bars], title: str, base: str) -> None:
    most = max(len(bars) for _, bars in rows)
    high = _BAR / (most * _BAR + _APART)
    for place, (_, bars) in enumerate(rows):
        for number, (loop, value, text) in enumerate(bars):
            y = place + (number - (len(bars) - 1) / 2) * high
            own = loop == "fastloop"
            colour = _colour(loop if loop in _COLOURS else "other")
            axes.barh(y, value, 0.9 * high, color=colour)
            axes.annotate(
                f"{text}  {loop}",
                (max(value, 1), y),  # the line of the base goes through none
                xytext=(5, 0),
                textcoords="offset points",
                va="center",
                weight="bold" if own else "normal",
                color=_colour("text" if own else "faint"),
            )
    axes.set_xlim(0, 1.2 * axes.get_xlim()[1])
    axes.set_ylim(len(rows) - 0.4, -0.6)
    axes.set_yticks(range(len(rows)), [name for name, _ in rows])
    axes.set_xticks([])
    axes.tick_params(length=0)
    axes.set_frame_on(False)
    axes.axvline(1, color=_colour("faint"), linewidth=0.8, zorder=0)
    axes.annotate(
        base,
        (1, -0.6),
        xytext=(0, 3),
        textcoords="offset points",
        ha="center",
        color=_colour("faint"),
    )
    # A $ in a title starts no formula.
    axes.set_title(title, loc="left", pad=18, weight="bold", parse_math=False)


def write_chart(result: Result, path: str) -> None:
    """Write the chart of a result for a README: over the first other loop."""
    base = result.others()[0]
    rows: list[Bars] = []
    for metric in result.metrics:
        bars = []
        for label in result.labels:
            found = result.against(base, metric, label)
            if label != base and found:
                text = f"{found.ratio:.2f}{'' if found.sure else ' ?'}"
                bars.append((label, found.ratio, text))
        if bars:
            rows.append((metric["title"], bars))
    if not rows:
        raise Refused(f"{path} is not written: there is no ratio to draw")
    machine = result.data["machine"]
    python = machine["python"].split(" ")[0]
    draw(
        rows,
        f"{shorten(result.data['what'], 70)}\n"
        f"Times as good as {base} (longer is better)",
        base,
        f"CPython {python}, {machine['cpu']}, {machine['date']}; geometric "
        f"means of {result.rounds}; ?: may be chance",
        path,
    )
