"""Draws ratios as bars: of all rows, or of the few that stand for a run.

uvloop, or asyncio without it, is the line at 1.  Colours keep apart for those
who do not see red and green, and each bar has its number.  matplotlib is asked
for only when a chart is, and is no need otherwise.
"""

from __future__ import annotations

from importlib.util import find_spec
from pathlib import Path

from fastloop.cli.charts import COLOURS, THEMES, label_right, new_figure
from harness.loops import LOOPS
from harness.report import best, figure, ratio

#: The rows of the chart for a README.
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
    loop for loop in LOOPS if loop not in ("asyncio", "uvloop", "fastloop")
)
HEIGHT = 0.26  # inches, of a bar
#: The title of a row, and its bars: a loop and how many times as good it is.
Bars = tuple[str, list[tuple[str, float]]]


class ChartError(Exception):
    """A chart cannot be drawn; the text says why."""


def check(files: list[str]) -> None:
    """Raise ChartError for a name that is neither PNG nor SVG."""
    for name in files:
        if Path(name).suffix.lower() not in (".png", ".svg"):
            raise ChartError(f"{name}: a plot ends in .png or .svg")


def draw_all(data: dict, files: list[str]) -> None:
    """Draw every loop in every row that is judged.

    Raises ChartError if that is not done.
    """
    base = next(
        (
            loop
            for loop in ("uvloop", "asyncio")
            if any(figure(row, loop) for row in data["rows"])
        ),
        "",
    )
    others = [loop for loop in LOOPS if loop != base]
    judged = [row for row in data["rows"] if not row["aside"]]
    rows = [_bars(row, row["title"], others, base) for row in judged]
    rows = [row for row in rows if row[1]]
    if not rows:
        raise ChartError("no chart: no loop to compare with another")
    for name in files:
        _draw(rows, base, data["machine"], "light", name, log=True)


def draw(data: dict, stem: str) -> None:
    """Draw the rows of ROWS: STEM-light.svg and STEM-dark.svg.

    Raises ChartError where matplotlib or a row to draw is missing.
    """
    found = {row["row"]: row for row in data["rows"]}
    rows = []
    for key, title in ROWS.items():
        if key in found and ratio(found[key], "fastloop", "uvloop"):
            players = ["asyncio", best(found[key], OTHERS), "fastloop"]
            rows.append(_bars(found[key], title, players, "uvloop"))
    if not rows:
        raise ChartError("no chart: no row has both fastloop and uvloop")
    for theme in THEMES:
        name = f"{stem}-{theme}.svg"
        _draw(rows, "uvloop", data["machine"], theme, name)


def _bars(row: dict, title: str, loops: list[str], base: str) -> Bars:
    found = ((loop, ratio(row, loop, base)) for loop in loops)
    return title, [(loop, value) for loop, value in found if value]


def _draw(
    rows: list[Bars],
    base: str,
    machine: dict,
    theme: str,
    name: str,
    log: bool = False,
) -> None:
    if find_spec("matplotlib") is None:
        raise ChartError("no chart: python -m pip install matplotlib")
    colours = {key: pair[theme == "dark"] for key, pair in COLOURS.items()}
    title = f"Times as good as {base}"
    most = max(len(bars) for _, bars in rows)
    high = 1.1 + len(rows) * HEIGHT * (most if log else 2.9)
    with new_figure(8, high, theme, layout="constrained") as drawn:
        axes = drawn.subplots()
        axes.set_xscale("log" if log else "linear")
        for place, (_, bars) in enumerate(rows):
            for number, (loop, value) in enumerate(bars):
                y = place + (number - (len(bars) - 1) / 2) * 0.78 / most
                own = loop == "fastloop"
                axes.barh(
                    y,
                    # On a logarithmic scale from 1 on, to the left or right.
                    value - log,
                    left=int(log),
                    height=0.69 / most,
                    color=colours[loop if loop in COLOURS else "uvloop"],
                )
                label_right(
                    axes,
                    f"{value:.2f}  {loop}",
                    # The line of the base goes through no text.
                    (max(value, 1), y),
                    size=8.5,
                    weight="bold" if own else "normal",
                    color=colours["text" if own else "faint"],
                )
        low, right = axes.get_xlim()
        axes.set_xlim(low if log else 0, right * (2 if log else 1.2))
        axes.set_ylim(len(rows) - 0.4, -0.6)
        axes.set_yticks(range(len(rows)), [label for label, _ in rows])
        axes.set_xticks([])
        axes.minorticks_off()
        axes.tick_params(left=False, labelcolor=colours["text"])
        axes.axvline(1, color=colours["faint"], linewidth=0.8, zorder=0)
        axes.set_frame_on(False)
        axes.annotate(
            base,
            (1, -0.6),
            xytext=(0, 3),
            textcoords="offset points",
            ha="center",
            size=8.5,
            color=colours["faint"],
        )
        better = "further right" if log else "longer"
        axes.set_title(
            f"{title} ({better} is better)", loc="left", pad=18, weight="bold"
        )
        python = machine["python"].split(" ")[0]
        drawn.supxlabel(
            f"CPython {python}, {machine['cpu']}, {machine['date']}",
            size=8,
            color=colours["faint"],
        )
        about = {"Title": title, "Date": None} if name[-3:] == "svg" else None
        drawn.savefig(name, transparent=not log, dpi=120, metadata=about)
