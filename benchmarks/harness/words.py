"""Writes what other pages say of a run."""

from __future__ import annotations

import re
import textwrap
from collections.abc import Callable, Iterable
from functools import partial
from pathlib import Path

from harness import chart
from harness.markdown import over_best, place, rows_of_one, sentences
from harness.report import best_peer, by_loop, cell, ratio, table, times

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
BASES = ("asyncio", "uvloop")
HEAD = ["", "unit", "fastloop", "asyncio", "uvloop", "zuvloop", "best peer"]
THREADS = "two threads over one, "
BETWEEN = r"(?<=<!-- {0}: begin -->\n).*(?=<!-- {0}: end -->)"
#: The rows of a run, by their keys.
Rows = dict[str, dict]


def picked(rows: Rows, keys: Iterable[str]) -> list[dict]:
    """Return rows; raise ValueError where one lacks a ratio."""
    for key in keys:
        row = rows.get(key)
        if not row or not all(ratio(row, "fastloop", one) for one in BASES):
            raise ValueError(f"the run has no ratios of {key}")
    return [rows[key] for key in keys]


def expected(rows: Rows) -> str:
    """Return what a user may expect."""
    over = (
        [ratio(row, "fastloop", "asyncio") for row in picked(rows, keys)]
        for keys in (AT_ONCE, FASTAPI)
    )
    servers, fastapi = (f"{min(one):.1f} to {max(one):.1f}" for one in over)
    return (
        f"**What to expect:** a server that answers at once reaches {servers} "
        f"times asyncio, FastAPI {fastapi} times. A program that computes "
        "gains nothing."
    )


def line(name: str, row: dict) -> list[str]:
    """Return fastloop's figure in a row, and those of others with how many
    times as good it is.
    """
    found = [name, row["unit"], cell(row, "fastloop")]
    for loop in ("asyncio", "uvloop", "zuvloop"):
        own, over = cell(row, loop), times(ratio(row, "fastloop", loop))
        failed = own.endswith("failed")
        found.append(f"{own} ({over})" if over and not failed else own)
    return [*found, f"{best_peer(row)} ({over_best(row).split(' ')[0]})"]


def on(machine: dict) -> str:
    """Say where the run was made."""
    python = ".".join(machine["python"].split(".")[:2])
    return f"CPython {python}, {len(machine['cpus'])} CPUs"


def rows_of(
    rows: Rows, machine: dict, names: dict[str, str], newcomer: bool
) -> list[str]:
    """Return the rows of these keys as a table, and what they say.

    A newcomer gets the slower rows as well, and no count of other peers.
    """
    shown = zip(names.values(), picked(rows, names), strict=True)
    lines = [HEAD, *(line(name, row) for name, row in shown)]
    places = sentences([*rows.values()])
    if newcomer:
        slower = [
            line(row["title"], row)
            for row in rows.values()
            if "**behind**" in {place(row, peer) for peer in BASES}
        ]
        title = ["**slower than asyncio or uvloop:**", *[""] * (len(HEAD) - 1)]
        lines += [title, *slower] if slower else []
        places = [one for one in places if "best peer" not in one]
    facts = (
        f"{on(machine)}; two threads on a free-threaded CPython. In brackets: "
        f"how many times as good fastloop is. {' '.join(places)} "
        "Inconclusive: the 95 % interval of the ratio includes 1."
    )
    told = (textwrap.fill(text, 79) for text in (expected(rows), facts))
    return [next(told), "", *table(lines), "", *told]


def threads(rows: Rows, machine: dict) -> list[str]:
    """Return a table of two threads; raise ValueError where none was
    measured.
    """
    found = [
        {**row, "title": row["title"].removeprefix(THREADS)}
        for row in rows.values()
        if row["case"].startswith("two_threads")
    ]
    lines = by_loop(
        found, ["two threads over one"], ("asyncio", "fastloop"), cell
    )
    if not lines:
        raise ValueError("the run has no row of two threads")
    return table(lines)


def of_four(
    rows: list[dict],
    head: str,
    cell: Callable[[dict, str], str],
    facts: str,
) -> list[str]:
    """Return a table of what `cell` says of four loops, and facts; raise
    ValueError where none was measured.
    """
    lines = by_loop(rows, [head], (*BASES, "zuvloop", "fastloop"), cell)
    if not lines:
        raise ValueError(f"the run has no row of {head}")
    return [*table(lines), "", *textwrap.wrap(facts, 79)]


def tokens(rows: Rows, machine: dict) -> list[str]:
    """Return a table of streams of tokens."""

    def told(row: dict, loop: str) -> str:
        cpu, p50, p99, health, rate = (
            cell(rows[f"{row['case']}_{name}"], loop)
            for name in ("cpu", "p50", "p99", "health", "rate")
        )
        if cpu.endswith("failed"):
            return "failed"
        return cpu and f"{cpu}; {p50} / {p99}; {health}; {rate}"

    found = [
        {
            **row,
            "title": re.sub(
                " streams of.*?(?=,)|, server.*", "", row["title"]
            ),
        }
        for row in rows.values()
        if row["row"] == f"{row['case']}_cpu" and row["group"] == "tokens"
    ]
    facts = (
        f"{on(machine)}. The server's CPU time for a token, in microseconds; "
        "how late a token is, p50 / p99, and the p99 of the health check, in "
        "milliseconds; tokens sent in a second."
    )
    return of_four(found, "streams of tokens", told, facts)


def late(rows: Rows, machine: dict) -> list[str]:
    """Return a table of waits."""
    found = [row for row in rows.values() if row["group"] == "late"]

    def waits(row: dict, loop: str) -> str:
        own, most = cell(row, loop), cell(rows[f"{row['row']}_most"], loop)
        return own if own in ("", most) else f"{own} ({most})"

    facts = (
        f"{on(machine)}. The median wait, and in brackets the greatest of a "
        "repetition."
    )
    judged = [row for row in found if not row["aside"]]
    return of_four(judged, "milliseconds", waits, facts)


#: The pages that quote a run, their marks, and what stands between them.
PAGES = (
    ("README.md", "race", partial(rows_of, names=ROWS, newcomer=True)),
    ("docs/index.md", "race", partial(rows_of, names=ROWS, newcomer=True)),
    (
        "docs/performance.md",
        "race",
        partial(rows_of, names=chart.ROWS, newcomer=False),
    ),
    ("docs/performance.md", "late", late),
    ("docs/performance.md", "tokens", tokens),
    ("docs/one-process-many-loops.md", "race", threads),
)


def write_pages(folder: str, data: dict, also: dict | None) -> list[str]:
    """Write what the pages in a folder say of a run and the one beside it.

    Returns what is wrong, a sentence for each part that is left as it is.
    """
    every = rows_of_one(data, also) + (also["rows"] if also else [])
    rows = {row["row"]: row for row in every}
    wrong = []
    for name, mark, make in PAGES:
        try:
            lines = make(rows, data["machine"])
            write_block(Path(folder, name), mark, lines)
        except (ValueError, OSError) as error:
            wrong.append(f"{mark} in {name} is left as it is: {error}")
    return wrong


def write_block(path: Path, mark: str, lines: list[str]) -> None:
    """Replace what is between `<!-- MARK: begin -->` and its end.

    Raises ValueError where the file has no such section.
    """
    page = path.read_text()
    between = re.compile(BETWEEN.format(mark), re.DOTALL)
    if len(between.findall(page)) != 1:
        raise ValueError("it has no such section")
    block = "\n".join(["", *lines, "", ""])
    path.write_text(between.sub(lambda _: block, page))
