"""Writes the few rows that stand for a run into a README.

    python benchmarks/harness/readme.py README.md RUN.json [ANOTHER.json]

What stands between the lines `<!-- race: begin -->` and `<!-- race: end -->`
is replaced: a table of the chart's rows, and in how many rows of both runs
fastloop is first and behind.
"""

from __future__ import annotations

import json
import re
import sys
import textwrap
from pathlib import Path

sys.path[:1] = [str(Path(__file__).resolve().parents[1])]

from harness import markdown  # noqa: E402
from harness.chart import OTHERS, ROWS  # noqa: E402

BETWEEN = re.compile(
    r"(?<=<!-- race: begin -->\n).*(?=<!-- race: end -->)", re.DOTALL
)
HEAD = "| over uvloop, more is better | asyncio | best peer | fastloop |"


def line(row: dict, title: str) -> str:
    """Return a row of the table; bold where no peer is ahead."""
    other = markdown.best(row, OTHERS)
    own = markdown.times(markdown.ratio(row, "fastloop", "uvloop"))
    if markdown.place(row) in ("first", "even"):
        own = f"**{own}**"
    cells = [
        title,
        markdown.times(markdown.ratio(row, "asyncio", "uvloop")),
        f"{markdown.times(markdown.ratio(row, other, 'uvloop'))} ({other})"
        if other
        else "",
        own,
    ]
    return f"| {' | '.join(cells)} |"


def section(data: dict, also: dict | None = None) -> str:
    """Return what stands between the markers."""
    found = {row["row"]: row for row in data["rows"]}
    rows = markdown.all_rows(data, also)
    judged = [where for where in map(markdown.place, rows) if where]
    machine = data["machine"]
    python = ".".join(machine["python"].split(" ")[0].split(".")[:2])
    most = "up to " if data["cut"] else ""
    words = (
        f"Bold: first, or even with the best (within {1 - markdown.EVEN:.0%})."
        f" CPython {python}, {len(machine['cpus'])} CPUs, medians of "
        f"{most}{data['settings']['repeat']} alternating runs. Of all "
        f"{len(judged)} "
        f"rows fastloop is first in {judged.count('first')}, even with the "
        f"best in {judged.count('even')} and behind in "
        f"{judged.count('**lost**')}."
    )
    lines = [
        "",
        HEAD,
        "|---|---|---|---|",
        *(line(found[key], title) for key, title in ROWS.items()),
        "",
        textwrap.fill(words, 79),
        "",
    ]
    return "\n".join(lines)


def write(path: str, data: dict, also: dict | None = None) -> None:
    """Replace the section of the file.

    Raises ValueError where the file has no such section, or the run not every
    row of the table.
    """
    missing = set(ROWS) - {row["row"] for row in data["rows"]}
    if missing:
        raise ValueError(f"{path} is left as it is: no {', '.join(missing)}")
    text = Path(path).read_text()
    if len(BETWEEN.findall(text)) != 1:
        raise ValueError(f"{path} has no section for the race")
    found = section(data, also)
    Path(path).write_text(BETWEEN.sub(lambda _: found, text))


if __name__ == "__main__":
    write(
        sys.argv[1],
        *(json.loads(Path(name).read_text()) for name in sys.argv[2:]),
    )
