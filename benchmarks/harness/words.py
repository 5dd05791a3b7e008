"""Writes what other pages say of a report (RESULTS.md).

It reads the report's text and not the run, so that the pages can be written
again where the run's JSON is gone.
"""

from __future__ import annotations

import re
import textwrap
from pathlib import Path

from harness.case import all_cases
from harness.markdown import told, write_block
from harness.report import ratio

#: The rows that the words name, and their names there.
ROWS = {
    "echo_protocol_64x1k": "TCP echo (1 KiB, CPU time of the server)",
    "uvicorn": "uvicorn (plain text, requests a second)",
    "echo_streams_64x1k": "Streams (1 KiB, CPU time of the server)",
}
THREADS = "two threads over one, "
FIGURES = "## Every loop's figures"
#: What the report says of the run, and what is wrong if it does not.
FACTS = {
    "python": r"^- CPython (\d+\.\d+)",
    "cpus": r", (\d+) CPUs?,",
    "places": r"^((?:- Against .*\n)+)",
}


def numbers(part: str) -> dict[str, dict[str, float]]:
    """Return the numbers in a part's tables, by a row's title and column."""
    found: dict[str, dict[str, float]] = {}
    head: list[str] = []
    for line in part.splitlines():
        cells = [cell.strip() for cell in line.strip("|").split(" | ")]
        if cells[0] == "row":
            head = cells
        elif line.startswith("| ") and head and cells[0] != "---":
            found[cells[0]] = {
                column: float(cell.split()[0].replace(",", ""))
                for column, cell in zip(head[2:], cells[2:], strict=True)
                if cell[:1].isdigit()
            }
    return found


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


def words(page: str) -> str:
    """Return them; raise ValueError where the report lacks a row."""
    found = numbers(page.partition(FIGURES)[0])
    rows = {row.key: row for case in all_cases().values() for row in case.rows}
    said = []
    for key, name in ROWS.items():
        one = found.get(rows[key].title, {})
        if not {"over uvloop", "over asyncio"} <= one.keys():
            raise ValueError(f"the report has no ratios of {key}")
        said.append(
            f"- **{name}: {one['over asyncio']:.1f} times asyncio, "
            f"{one['over uvloop']:.2f} times uvloop**"
        )
    facts = {}
    for name, pattern in FACTS.items():
        match = re.search(pattern, page, re.MULTILINE)
        if match is None:
            raise ValueError(f"the report does not say: {name}")
        facts[name] = match[1]
    counts = facts["places"].removeprefix("- ").rstrip().split("\n- ")
    # A newcomer knows asyncio and uvloop; the report has the other peers.
    places = told([one for one in counts if "best peer" not in one])
    rest = (
        "Above 1, fastloop is better: 4 times in CPU time is a quarter of it. "
        f"CPython {facts['python']}, {facts['cpus']} CPUs. A row is one "
        f"measurement. {places}"
    )
    return "\n".join(["", *said, "", textwrap.fill(rest, 79), "", ""])


def threads(page: str) -> str:
    """Return a table of two threads; raise ValueError where none was
    measured.
    """
    lines = [
        f"| {title.removeprefix(THREADS)} | {one['asyncio']:.2f} "
        f"| {one['fastloop']:.2f} |"
        for title, one in numbers(page.partition(FIGURES)[2]).items()
        if title.startswith(THREADS) and {"asyncio", "fastloop"} <= one.keys()
    ]
    if not lines:
        raise ValueError("the report has no row of two threads")
    head = [
        "",
        "| two threads over one | asyncio | fastloop |",
        "|---|---|---|",
    ]
    return "\n".join([*head, *lines, "", ""])


#: The pages that quote a report, and what stands between their marks.
PAGES = {
    "README.md": words,
    "docs/index.md": words,
    "docs/one-process-many-loops.md": threads,
}


def write_pages(folder: str, page: str) -> list[str]:
    """Write what the pages in a folder say of a report.

    Returns what is wrong, a sentence for each page that is left as it is.
    """
    wrong = []
    for name, make in PAGES.items():
        try:
            write_block(str(Path(folder, name)), make(page))
        except (ValueError, OSError) as error:
            wrong.append(f"{name} is left as it is: {error}")
    return wrong
