"""Writes what other pages say of a run."""

from __future__ import annotations

import re
import textwrap
from collections.abc import Callable, Iterable
from pathlib import Path

from harness.counts import KINDS
from harness.markdown import place, rows_of_one, sentences
from harness.report import best_peer, by_loop, cell, ratio, short, table, times

#: The rows that a newcomer sees, and their names there.
ROWS = {
    "echo_protocol_64x1k": "TCP echo (1 KiB, CPU time of the server)",
    "echo_streams_64x1k": "Streams (1 KiB, CPU time of the server)",
    "uvicorn": "uvicorn (plain text, requests a second)",
    "fastapi_def": "FastAPI, a plain `def` endpoint (requests a second)",
    "executor_64": "run_in_executor (64 in flight, time of a job)",
    "idle_tls": "An idle TLS connection (memory)",
}
#: What people run, and the rows that are nearest to it.
USES = {
    "fastapi_def": "a FastAPI service, plain `def`",
    "fastapi_sqlalchemy": "a FastAPI service with a database",
    "uvicorn": "an ASGI application that answers at once",
    "chat": "a websocket server",
    "redis_32": "a redis worker, many jobs at a time",
    "redis_1": "a redis worker, one job at a time",
    "downloads": "a scraper",
    "tokens_each_256_cpu": "an LLM or MCP server that streams",
    "executor_64": "jobs in threads",
    "new_loop": "a pytest suite, the loop of a test",
    "import": "a script, until its loop runs",
}
#: Shorter names of rows that fastloop may lose, one with the reason, and how
#: many are named.
LOST = {
    "asyncpg_32": "asyncpg (needs less CPU, so sleeps more)",
    "import": "start",
    "memory": "memory of one loop",
}
MOST_LOST = 4
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
HEAD = ["unit", "fastloop", *BASES, "best peer"]
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


def beside(row: dict, loop: str) -> str:
    """Return a loop's figure, and how many times as good fastloop's is."""
    own, over = cell(row, loop), times(ratio(row, "fastloop", loop))
    failed = own.endswith("failed")
    return f"{own} ({over})" if over and not failed else own


def line(row: dict) -> list[str]:
    """Return fastloop's figure in a row, and those of others beside it."""
    own = [row["unit"], cell(row, "fastloop")]
    own += [beside(row, loop) for loop in BASES]
    peer = best_peer(row)
    return [*own, f"{peer} {beside(row, peer)}"]


def on(machine: dict) -> str:
    """Say where the run was made."""
    python = ".".join(machine["python"].split(".")[:2])
    return f"CPython {python}, {len(machine['cpus'])} CPUs"


def facts(machine: dict, places: list[str]) -> str:
    """Return what the figures of a table are, and all places."""
    return (
        f"{on(machine)}. In brackets: how many times as good fastloop is, the "
        f"one figure divided by the other. {' '.join(places)} Samples of the "
        "same time decide that, and which peer is the best: another peer may "
        "have a better figure. A row is even if the 95 % interval of "
        "their ratio lies within 3 % of 1, and inconclusive if it includes 1 "
        "and is wider."
    )


def counts_of(row: dict, loop: str) -> str:
    """Return a loop's counts in a row; "" without."""
    found = row.get("counts", {}).get(loop, {})
    return " and ".join(short(found[kind]) for kind in KINDS if kind in found)


def by_counts(shown: dict[str, dict]) -> list[str]:
    """Return the counts of rows whose place no clock decides, a sentence."""
    told = []
    for name, row in shown.items():
        own, peer = counts_of(row, "fastloop"), best_peer(row)
        if place(row) == "inconclusive" and own and counts_of(row, peer):
            name = name.partition(" (")[0]
            told.append(f"{name} {own} ({peer} {counts_of(row, peer)})")
    head = (
        "The clock leaves some rows open. fastloop's user instructions and "
        "system calls for an operation there: "
    )
    return [f"{head}{'; '.join(told)}."] if told else []


def lost(rows: Rows) -> list[str]:
    """Return what fastloop loses to asyncio and uvloop, a sentence each."""
    out = []
    for base in BASES:
        behind = {
            key: row
            for key, row in rows.items()
            if place(row, base) == "**behind**"
        }
        slower = [
            f"{LOST.get(key, row['title'])}, {cell(row, 'fastloop')} "
            f"{row['unit']} against {cell(row, base)}"
            for key, row in behind.items()
            # As a reader sees it, too: see report.py.
            if (ratio(row, "fastloop", base) or 1) < 1
        ][:MOST_LOST]
        more = len(behind) - len(slower)
        if more and slower:
            slower.append(f"and {more} more row{'s' * (more > 1)}")
        told = "; ".join(slower).replace(" 1/s", "/s").replace(" times", "")
        out += [f"Slower than {base}: {told}."] if slower else []
    return out


def newcomer(rows: Rows, machine: dict) -> list[str]:
    """Return six rows, what fastloop loses, and counts where clocks do not
    decide.
    """
    found = picked(rows, ROWS)
    shown = dict(zip(ROWS.values(), found, strict=True))
    lines = [[name, *line(row)] for name, row in shown.items()]
    places = [
        one for one in sentences([*rows.values()]) if "best peer" not in one
    ]
    told = [facts(machine, places), *by_counts(shown), *lost(rows)]
    return [
        textwrap.fill(expected(rows), 79),
        "",
        *table([["", *HEAD], *lines]),
        *(one for text in told for one in ("", textwrap.fill(text, 79))),
    ]


def by_use(rows: Rows, machine: dict) -> list[str]:
    """Return a table of what people run, and all places."""
    lines = [
        [f"{name}: *{row['title']}*", *line(row)]
        for name, row in zip(USES.values(), picked(rows, USES), strict=True)
    ]
    text = facts(machine, sentences([*rows.values()]))
    head = ["you run: *the row behind it*", *HEAD]
    first = textwrap.fill(expected(rows), 79)
    return [first, "", *table([head, *lines]), "", *textwrap.wrap(text, 79)]


def threads(rows: Rows, machine: dict) -> list[str]:
    """Return a table of two threads; raise ValueError where none was
    measured.
    """
    found = [
        {**row, "title": row["title"].removeprefix(THREADS)}
        for row in rows.values()
        if row["title"].startswith(THREADS)
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
        f"{on(machine)}. The median wait, and in brackets the greatest of all."
    )
    judged = [row for row in found if not row["aside"]]
    return of_four(judged, "milliseconds", waits, facts)


#: The pages that quote a run, their marks, and what stands between them.
PAGES = (
    ("README.md", "race", newcomer),
    ("docs/performance.md", "race", by_use),
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
