"""Draws how many times as good as uvloop loops are in a few rows.

matplotlib is asked for only when a chart is, and is no need otherwise.
"""

from __future__ import annotations

import io
import re
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from harness.loops import LOOPS
from harness.report import best, ratio

#: The rows that stand for a run.
ROWS = {
    "echo_protocol_64x1k": "TCP echo, Protocol",
    "echo_streams_64x1k": "TCP echo, streams",
    "echo_tls_64x1k": "TLS echo",
    "sock_64x1k": "sock_recv, sock_sendall",
    "uvicorn": "uvicorn, plain text",
    "aiohttp": "aiohttp, plain text",
    "redis_32": "redis-py, 32 clients",
    "gather_1000": "gather of 1,000 tasks",
}
BASE = "uvloop"
OTHERS = tuple(
    loop for loop in LOOPS if loop not in ("asyncio", BASE, "fastloop")
)
#: Inches of a bar, of what is between rows, and of the chart's width.
BAR, APART, WIDE = 0.25, 0.2, 8
THEMES = ("light", "dark")
#: The colour of a name in each theme.  All are drawn in those of the first.
COLOURS = {
    "text": ("#1f2328", "#f0f6fc"),
    "faint": ("#59636e", "#9198a1"),
    "asyncio": ("#aab2bb", "#656c76"),
    "other": ("#d18616", "#d9963b"),
    "fastloop": ("#0969da", "#4493f8"),
}
#: The title of a row, and its bars: a loop, and how many times as good it is.
Bars = tuple[str, list[tuple[str, float]]]


class ChartError(Exception):
    """A chart cannot be drawn; the text says why."""


def write(data: dict, stem: str) -> None:
    """Write a run's chart: STEM-light.svg and STEM-dark.svg.

    Raises ChartError where matplotlib or a row to draw is missing.
    """
    found = {row["row"]: row for row in data["rows"]}
    rows: list[Bars] = []
    for key, title in ROWS.items():
        if key in found and ratio(found[key], "fastloop", BASE):
            players = ["asyncio", best(found[key], OTHERS), "fastloop"]
            over = ((one, ratio(found[key], one, BASE)) for one in players)
            rows.append((title, [(one, at) for one, at in over if at]))
    if not rows:
        raise ChartError(f"no chart: no row has both fastloop and {BASE}")
    if find_spec("matplotlib") is None:
        raise ChartError("no chart: python -m pip install matplotlib")
    machine = data["machine"]
    python = machine["python"].split(" ")[0]
    caption = f"CPython {python}, {machine['cpu']}, {machine['date']}"
    svg = _draw(rows, caption)
    for column, theme in enumerate(THEMES):
        text = svg
        for pair in COLOURS.values():
            text = text.replace(pair[0], pair[column])
        Path(f"{stem}-{theme}.svg").write_text(text)


def _draw(rows: list[Bars], caption: str) -> str:
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
    high = 1.1 + len(rows) * (most * BAR + APART)
    out = io.BytesIO()
    with matplotlib.rc_context(settings):
        drawn = Figure(figsize=(WIDE, high), layout="constrained")
        _draw_bars(drawn.subplots(), rows)
        drawn.supxlabel(caption, size=8, color=_colour("faint"))
        unknown = dict.fromkeys(("Date", "Creator", "Format", "Type"))
        drawn.savefig(out, format="svg", transparent=True, metadata=unknown)
    svg = out.getvalue().decode()
    svg = svg[svg.index("<svg") :]
    return re.sub(r"'DejaVu Sans'[^;\"]*", "system-ui, sans-serif", svg)


def _colour(name: str) -> str:
    return COLOURS[name][0]


def _draw_bars(axes: Any, rows: list[Bars]) -> None:
    most = max(len(bars) for _, bars in rows)
    high = BAR / (most * BAR + APART)
    for place, (_, bars) in enumerate(rows):
        for number, (loop, value) in enumerate(bars):
            y = place + (number - (len(bars) - 1) / 2) * high
            own = loop == "fastloop"
            colour = _colour(loop if loop in COLOURS else "other")
            axes.barh(y, value, 0.9 * high, color=colour)
            axes.annotate(
                f"{value:.2f}  {loop}",
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
        BASE,
        (1, -0.6),
        xytext=(0, 3),
        textcoords="offset points",
        ha="center",
        color=_colour("faint"),
    )
    title = f"Times as good as {BASE} (longer is better)"
    axes.set_title(title, loc="left", pad=18, weight="bold")
