"""Draws how many times as good as uvloop loops are in a few rows.

matplotlib is asked for only when a chart is, and is no need otherwise.
"""

from __future__ import annotations

from importlib.util import find_spec
from pathlib import Path

from fastloop.cli import charts
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
            bars = [(one, at, f"{at:.2f}") for one, at in over if at]
            rows.append((title, bars))
    if not rows:
        raise ChartError(f"no chart: no row has both fastloop and {BASE}")
    if find_spec("matplotlib") is None:
        raise ChartError("no chart: python -m pip install matplotlib")
    machine = data["machine"]
    python = machine["python"].split(" ")[0]
    title = f"Times as good as {BASE} (longer is better)"
    caption = f"CPython {python}, {machine['cpu']}, {machine['date']}"
    for name, theme in files.items():
        charts.draw(rows, title, BASE, caption, name, theme)


def both_themes(stem: str) -> dict[str, str]:
    """Return the files of a chart for light and dark pages."""
    return {f"{stem}-{theme}.svg": theme for theme in charts.THEMES}
