"""Writes what other pages say of a report (RESULTS.md).

It reads the report's text and not the run, so that the pages can be written
again where the run's JSON is gone.
"""

from __future__ import annotations

import re
import textwrap
from collections.abc import Iterable
from functools import partial
from pathlib import Path

from harness import chart
from harness.case import all_cases
from harness.report import ratio

#: The rows that the words name, and their names there.
ROWS = {
    "echo_protocol_64x1k": "TCP echo (1 KiB, CPU time of the server)",
    "echo_streams_64x1k": "Streams (1 KiB, CPU time of the server)",
    "uvicorn": "uvicorn (plain text, requests a second)",
    "fastapi_def": "FastAPI, a plain `def` endpoint (requests a second)",
    "executor_64": "run_in_executor (64 in flight, time of a job)",
    "idle_tls": "An idle TLS connection (memory)",
}
#: The rows whose least and greatest ratio over asyncio say what to expect.
AT_ONCE = (
    "echo_protocol_64x1k",
    "echo_streams_64x1k",
    "echo_tls_64x1k",
    "uvicorn",
    "aiohttp",
)
FASTAPI = ("fastapi_def", "fastapi_sqlalchemy")
THREADS = "two threads over one, "
FIGURES, COUNTS = "## Every loop's figures", "## Every loop's counts"
#: What the report says of the run, and what is wrong if it does not.
FACTS = {
    "python": r"^- CPython (\d+\.\d+)",
    "cpus": r", (\d+) CPUs?,",
    "places": r"^((?:- Against .*\n)+)",
}
SLOWER = re.compile(r"^Rows slower than \w+:\n\n((?:- .*\n)+)", re.MULTILINE)
BETWEEN = re.compile(
    r"(?<=<!-- race: begin -->\n).*(?=<!-- race: end -->)", re.DOTALL
)
#: The cells of a table's row, by their column.
Cells = dict[str, str]
#: The rows of tables, by their titles.
Table = dict[str, Cells]


def cells(part: str) -> Table:
    """Return the cells of a part's tables, by the titles of their rows."""
    found: Table = {}
    head: list[str] = []
    for line in part.splitlines():
        each = [cell.strip() for cell in line.strip("|").split(" | ")]
        if each[0] == "row":
            head = each
        elif line.startswith("| ") and head and each[0] != "---":
            # The other run's table has a row only where it was measured.
            kept = dict(zip(head, each, strict=True))
            if kept.get("fastloop"):
                found[each[0]] = kept
    return found


def first(cell: str) -> str:
    """Return the figure of a cell without its spread."""
    return "failed" if "failed" in cell else cell.split(" ")[0]


def in_short(data: dict) -> list[str]:
    """Return how good fastloop is in the rows of a run that README names."""
    rows = {row["row"]: row for row in data["rows"]}
    lines = []
    for key in filter(rows.get, ROWS):
        parts = [
            f"{over:.{digits}f} times {base}"
            for base, digits in (("asyncio", 1), ("uvloop", 2))
            if (over := ratio(rows[key], "fastloop", base))
        ]
        lines += [f"{ROWS[key]}: {', '.join(parts)}"] if parts else []
    return lines


def fact(page: str, name: str) -> str:
    """Return what the report says; raise ValueError if it does not."""
    match = re.search(FACTS[name], page, re.MULTILINE)
    if match is None:
        raise ValueError(f"the report does not say: {name}")
    return match[1]


def titles(rows: Table, keys: Iterable[str]) -> list[str]:
    """Return the titles of rows; raise ValueError where the report lacks
    one.
    """
    known = {
        row.key: row.title for c in all_cases().values() for row in c.rows
    }
    for key in keys:
        one = rows.get(known[key], {})
        if not (one.get("over uvloop") and one.get("over asyncio")):
            raise ValueError(f"the report has no ratios of {key}")
    return [known[key] for key in keys]


def expected(rows: Table) -> str:
    """Return what a user may expect."""
    over = (
        [float(rows[title]["over asyncio"]) for title in titles(rows, keys)]
        for keys in (AT_ONCE, FASTAPI)
    )
    servers, fastapi = (f"{min(one):.1f} to {max(one):.1f}" for one in over)
    return (
        f"**What to expect:** a server that answers at once reaches {servers} "
        f"times asyncio, FastAPI {fastapi} times. A program that computes "
        "gains nothing."
    )


def table_line(name: str, row: Cells, figures: Cells) -> str:
    """Return fastloop's figure in a row, and those of others with how many
    times as good it is.
    """
    found = [name, row["unit"], first(figures["fastloop"])]
    for loop in ("asyncio", "uvloop", "zuvloop"):
        own, over = first(figures.get(loop, "")), row.get(f"over {loop}")
        both = over and own[:1].isdigit()
        found.append(f"{own} ({over})" if both else own)
    found.append(f"{first(row['best peer'])} ({first(row['over the best'])})")
    return f"| {' | '.join(found)} |"


def rows_of(page: str, names: dict[str, str], newcomer: bool) -> list[str]:
    """Return the rows of these keys as a table, and what they say.

    A newcomer gets the slower rows as well, and no count of other peers.
    """
    part, _, more = page.partition(FIGURES)
    rows, figures = cells(part), cells(more.partition(COUNTS)[0])
    shown = [dict(zip(titles(rows, names), names.values(), strict=True))]
    places = fact(page, "places").removeprefix("- ").rstrip().split("\n- ")
    if newcomer:
        slower = "".join(SLOWER.findall(page)).splitlines()
        shown.append({line[2:]: line[2:] for line in slower})
        places = [one for one in places if "best peer" not in one]
    lines = ["| | unit | fastloop | asyncio | uvloop | zuvloop | best peer |"]
    lines += ["|---|---|---:|---:|---:|---:|---|"]
    for some in shown:
        if len(lines) > 2 and some:
            lines.append("| **slower than asyncio or uvloop:** | | | | | | |")
        lines += [
            table_line(name, rows[title], figures[title])
            for title, name in some.items()
        ]
    facts = (
        f"CPython {fact(page, 'python')}, {fact(page, 'cpus')} CPUs; two "
        "threads on a free-threaded CPython. In brackets: how many times as "
        "good fastloop is. "
        f"{' '.join(places)} Inconclusive: the 95 % interval of the ratio "
        "includes 1."
    )
    told = (textwrap.fill(text, 79) for text in (expected(rows), facts))
    return [next(told), "", *lines, "", *told]


def threads(page: str) -> list[str]:
    """Return a table of two threads; raise ValueError where none was
    measured.
    """
    lines = [
        f"| {title.removeprefix(THREADS)} | {first(one['asyncio'])} "
        f"| {first(one['fastloop'])} |"
        for title, one in cells(page.partition(FIGURES)[2]).items()
        if title.startswith(THREADS) and one.get("asyncio")
    ]
    if not lines:
        raise ValueError("the report has no row of two threads")
    head = ["| two threads over one | asyncio | fastloop |", "|---|---|---|"]
    return [*head, *lines]


#: The pages that quote a report, and what stands between their marks.
PAGES = {
    "README.md": partial(rows_of, names=ROWS, newcomer=True),
    "docs/index.md": partial(rows_of, names=ROWS, newcomer=True),
    "docs/performance.md": partial(rows_of, names=chart.ROWS, newcomer=False),
    "docs/one-process-many-loops.md": threads,
}


def write_pages(folder: str, page: str) -> list[str]:
    """Write what the pages in a folder say of a report.

    Returns what is wrong, a sentence for each page that is left as it is.
    """
    wrong = []
    for name, make in PAGES.items():
        try:
            write_block(Path(folder, name), make(page))
        except (ValueError, OSError) as error:
            wrong.append(f"{name} is left as it is: {error}")
    return wrong


def write_block(path: Path, lines: list[str]) -> None:
    """Replace what is between `<!-- race: begin -->` and its end.

    Raises ValueError where the file has no such section.
    """
    page = path.read_text()
    if len(BETWEEN.findall(page)) != 1:
        raise ValueError("it has no section for the race")
    block = "\n".join(["", *lines, "", ""])
    path.write_text(BETWEEN.sub(lambda _: block, page))
