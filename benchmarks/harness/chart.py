"""Draws the few rows that stand for a run: a chart for a README.

    python benchmarks/harness/chart.py RUN.json STEM

It writes STEM-light.svg and STEM-dark.svg, for the two kinds of page.
uvloop is the line at 1; asyncio, the best of the other loops, and fastloop
are bars.  Colours keep apart for those who do not see red and green, and
each bar has its number.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

sys.path[:1] = [str(Path(__file__).resolve().parents[1])]

from harness import markdown  # noqa: E402
from harness.loops import PYTHON_LOOPS  # noqa: E402
from harness.plot import PlotError  # noqa: E402

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
OTHERS = tuple(
    loop
    for loop in PYTHON_LOOPS
    if loop not in ("asyncio", "uvloop", "fastloop")
)
THEMES = {
    "light": {
        "text": "#1f2328",
        "faint": "#59636e",
        "asyncio": "#aab2bb",
        "other": "#d18616",
        "fastloop": "#0969da",
    },
    "dark": {
        "text": "#f0f6fc",
        "faint": "#9198a1",
        "asyncio": "#656c76",
        "other": "#e3a857",
        "fastloop": "#4493f8",
    },
}
HEIGHT = 0.26


def draw(data: dict, stem: str) -> list[str]:
    """Write both files; return their names.

    Raises PlotError where matplotlib or a row to draw is missing.
    """
    found = {row["row"]: row for row in data["rows"]}
    rows = [
        (found[key], title)
        for key, title in ROWS.items()
        if key in found and markdown.ratio(found[key], "fastloop", "uvloop")
    ]
    if not rows:
        raise PlotError("no chart: no row has both fastloop and uvloop")
    try:
        import matplotlib
    except ImportError as error:
        raise PlotError(f"no chart: {error}") from None
    matplotlib.use("Agg")
    names = []
    for theme, colours in THEMES.items():
        name = f"{stem}-{theme}.svg"
        _draw_one(rows, data["machine"], colours, name)
        names.append(name)
    return names


def _draw_one(
    rows: list[tuple[dict, str]],
    machine: dict,
    colours: dict[str, str],
    name: str,
) -> None:
    from matplotlib import pyplot

    title = "Times as good as uvloop"
    with pyplot.rc_context(
        {
            "font.family": "sans-serif",
            "font.size": 10,
            "text.color": colours["text"],
            "svg.hashsalt": "race",
        }
    ):
        figure, axes = pyplot.subplots(
            figsize=(8, 1.1 + 0.75 * len(rows)), layout="constrained"
        )
        for place, (row, _) in enumerate(rows):
            _draw_row(axes, row, place, colours)
        _finish(axes, rows, colours, title)
        python = machine["python"].split(" ")[0]
        figure.supxlabel(
            f"CPython {python}, {machine['cpu']}, {machine['date']}",
            fontsize=8,
            color=colours["faint"],
        )
        figure.savefig(
            name, transparent=True, metadata={"Title": title, "Date": None}
        )
        pyplot.close(figure)


def _draw_row(
    axes: Any, row: dict, place: int, colours: dict[str, str]
) -> None:
    other = markdown.best(row, OTHERS)
    bars = (
        ("asyncio", "asyncio", "asyncio"),
        (other, "other", other),
        ("fastloop", "fastloop", "fastloop"),
    )
    for number, (loop, colour, label) in enumerate(bars):
        value = markdown.ratio(row, loop, "uvloop") if loop else None
        if value is None:
            continue
        y = place + (number - 1) * HEIGHT
        axes.barh(y, value, height=HEIGHT * 0.88, color=colours[colour])
        axes.annotate(
            f"{value:.2f}  {label}",
            # The line of uvloop goes through no text.
            (max(value, 1), y),
            xytext=(5, 0),
            textcoords="offset points",
            va="center",
            fontsize=8.5,
            fontweight="bold" if loop == "fastloop" else "normal",
            color=colours["text" if loop == "fastloop" else "faint"],
        )


def _finish(
    axes: Any,
    rows: list[tuple[dict, str]],
    colours: dict[str, str],
    title: str,
) -> None:
    _, right = axes.get_xlim()
    axes.set_xlim(0, right * 1.2)
    axes.set_ylim(len(rows) - 0.4, -0.6)
    axes.set_yticks(range(len(rows)), [label for _, label in rows])
    axes.axvline(1, color=colours["faint"], linewidth=0.8, zorder=0)
    axes.set_facecolor("none")
    axes.annotate(
        "uvloop",
        (1, -0.6),
        xytext=(0, 3),
        textcoords="offset points",
        ha="center",
        fontsize=8.5,
        color=colours["faint"],
    )
    axes.set_title(
        f"{title} (longer is better)", loc="left", pad=18, weight="bold"
    )
    axes.set_xticks([])
    axes.tick_params(left=False, labelcolor=colours["text"])
    for spine in axes.spines.values():
        spine.set_visible(False)


if __name__ == "__main__":
    print(*draw(json.loads(Path(sys.argv[1]).read_text()), sys.argv[2]))
