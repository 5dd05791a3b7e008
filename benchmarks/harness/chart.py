"""Draws how many times as good as uvloop loops are in a few rows."""

from __future__ import annotations

from html import escape
from pathlib import Path

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
OTHERS = {*LOOPS} - {"asyncio", BASE, "fastloop"}
#: Pixels: of a bar and the next one, and of what is between rows; the chart's
#: width, where its bars begin, and the room of the longest one.
BAR, APART, WIDE, LEFT, LONGEST = 25, 19, 768, 160, 440
#: The colours of each theme.
THEMES = ("light", "dark")
COLOURS = {
    "text": ("#1f2328", "#f0f6fc"),
    "faint": ("#59636e", "#9198a1"),
    "asyncio": ("#aab2bb", "#656c76"),
    "other": ("#d18616", "#d9963b"),
    "fastloop": ("#0969da", "#4493f8"),
}


def write(data: dict, stem: str) -> None:
    """Write a run's chart: STEM-light.svg and STEM-dark.svg.

    Raises ValueError where no row can be drawn.
    """
    found = {row["row"]: row for row in data["rows"]}
    rows = {}  # the bars of each: a loop, and how many times as good it is
    for key, title in ROWS.items():
        if (row := found.get(key)) and ratio(row, "fastloop", BASE):
            players = ["asyncio", best(row, OTHERS), "fastloop"]
            over = {one: ratio(row, one, BASE) for one in players}
            rows[title] = {one: at for one, at in over.items() if at}
    if not rows:
        raise ValueError(f"no chart: no row has both fastloop and {BASE}")
    machine = data["machine"]
    python = machine["python"].split(" ")[0]
    caption = f"CPython {python}, {machine['cpu']}, {machine['date']}"
    for column, theme in enumerate(THEMES):
        colours = {name: each[column] for name, each in COLOURS.items()}
        Path(f"{stem}-{theme}.svg").write_text(_draw(rows, caption, colours))


def _draw(
    rows: dict[str, dict[str, float]], caption: str, colours: dict[str, str]
) -> str:
    most = max(1.0, *(max(bars.values()) for bars in rows.values()))
    base = LEFT + LONGEST / most
    lines: list[str] = []

    def text(
        x: float, y: float, words: str, colour: str = "faint", more: str = ""
    ) -> None:
        lines.append(
            f'<text x="{x:.1f}" y="{y}" fill="{colours[colour]}"{more}>'
            f"{escape(words)}</text>"
        )

    bold, centred = ' font-weight="700"', ' text-anchor="middle"'
    title = f"Times as good as {BASE} (longer is better)"
    text(LEFT, 16, title, "text", f'{bold} font-size="14.4"')
    text(base, 36, BASE, more=centred)
    y = 50
    for name, bars in rows.items():
        middle = y + len(bars) * BAR // 2 + 4
        text(LEFT - 5, middle, name, "text", ' text-anchor="end"')
        for loop, value in bars.items():
            width = LONGEST * value / most
            lines.append(
                f'<rect x="{LEFT}" y="{y}" width="{width:.1f}" height="23" '
                f'fill="{colours.get(loop, colours["other"])}"/>'
            )
            # The line of the base goes through no words.
            right = max(LEFT + width, base) + 7
            own = ("text", bold) if loop == "fastloop" else ()
            text(right, y + 16, f"{value:.2f} {loop}", *own)
            y += BAR
        y += APART
    text(WIDE / 2, y + 8, caption, more=centred)
    head = (
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{WIDE}" '
        f'height="{y + 16}" viewBox="0 0 {WIDE} {y + 16}" '
        'font-family="system-ui, sans-serif" '
        f'font-size="12">\n<path d="M{base:.1f} 40V{y - APART}" '
        f'stroke="{colours["faint"]}"/>'
    )
    return "\n".join([head, *lines, "</svg>\n"])
