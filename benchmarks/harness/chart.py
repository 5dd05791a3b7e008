"""Draws how many times as good as uvloop loops are in a few rows.

matplotlib is asked for only when a chart is, and is no need otherwise.
"""

from __future__ import annotations

from importlib.util import find_spec
from pathlib import Path

from fastloop.cli.charts import COLOURS, THEMES, label_right, new_figure
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
#: The title of a row, and its bars: a loop and how many times as good it is.
Bars = tuple[str, list[tuple[str, float]]]


class ChartError(Exception):
    """A chart cannot be drawn; the text says why."""


def check(files: list[str]) -> None:
    """Raise ChartError for a name that is neither PNG nor SVG."""
    for name in files:
        if Path(name).suffix.lower() not in (".png", ".svg"):
            raise ChartError(f"{name}: a plot ends in .png or .svg")


def draw(data: dict, files: dict[str, str]) -> None:
    """Draw the files, given with their themes.

    Raises ChartError where matplotlib or a row to draw is missing.
    """
    found = {row["row"]: row for row in data["rows"]}
    rows = []
    for key, title in ROWS.items():
        if key in found and ratio(found[key], "fastloop", BASE):
            players = ["asyncio", best(found[key], OTHERS), "fastloop"]
            over = ((one, ratio(found[key], one, BASE)) for one in players)
            rows.append(
                (title, [(one, value) for one, value in over if value])
            )
    if not rows:
        raise ChartError(f"no chart: no row has both fastloop and {BASE}")
    if find_spec("matplotlib") is None:
        raise ChartError("no chart: python -m pip install matplotlib")
    for name, theme in files.items():
        _draw(rows, data["machine"], theme, name)


def both_themes(stem: str) -> dict[str, str]:
    """Return the files of a chart for light and dark pages."""
    return {f"{stem}-{theme}.svg": theme for theme in THEMES}


def _draw(rows: list[Bars], machine: dict, theme: str, name: str) -> None:
    colours = {key: pair[theme == "dark"] for key, pair in COLOURS.items()}
    title = f"Times as good as {BASE}"
    high = 1.1 + len(rows) * 0.75
    with new_figure(8, high, theme, layout="constrained") as drawn:
        axes = drawn.subplots()
        for place, (_, bars) in enumerate(rows):
            for number, (loop, value) in enumerate(bars):
                y = place + (number - (len(bars) - 1) / 2) * 0.26
                own = loop == "fastloop"
                colour = colours[loop if loop in COLOURS else BASE]
                axes.barh(y, value, height=0.23, color=colour)
                label_right(
                    axes,
                    f"{value:.2f}  {loop}",
                    # The line of the base goes through no text.
                    (max(value, 1), y),
                    size=8.5,
                    weight="bold" if own else "normal",
                    color=colours["text" if own else "faint"],
                )
        axes.set_xlim(0, axes.get_xlim()[1] * 1.2)
        axes.set_ylim(len(rows) - 0.4, -0.6)
        axes.set_yticks(range(len(rows)), [label for label, _ in rows])
        axes.set_xticks([])
        axes.tick_params(left=False, labelcolor=colours["text"])
        axes.axvline(1, color=colours["faint"], linewidth=0.8, zorder=0)
        axes.set_frame_on(False)
        axes.annotate(
            BASE,
            (1, -0.6),
            xytext=(0, 3),
            textcoords="offset points",
            ha="center",
            size=8.5,
            color=colours["faint"],
        )
        axes.set_title(
            f"{title} (longer is better)", loc="left", pad=18, weight="bold"
        )
        python = machine["python"].split(" ")[0]
        drawn.supxlabel(
            f"CPython {python}, {machine['cpu']}, {machine['date']}",
            size=8,
            color=colours["faint"],
        )
        is_svg = name.endswith(".svg")
        about = {"Title": title, "Date": None} if is_svg else None
        # A png is looked at by itself.
        drawn.savefig(name, transparent=is_svg, dpi=120, metadata=about)
