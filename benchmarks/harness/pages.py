"""Writes a run: on a terminal, as a page of Markdown, and in other pages."""

from __future__ import annotations

import math
import re
import textwrap
from collections import Counter
from collections.abc import Callable, Iterable
from functools import partial
from pathlib import Path

from fastloop.cli.options import aligned, listed
from harness.case import GROUPS
from harness.counts import CALLS, INSTRUCTIONS, KINDS
from harness.loops import LOOPS
from harness.report import (
    Columns,
    against,
    best_peer,
    by_loop,
    cell,
    filled,
    is_measured,
    notes,
    of,
    over,
    ratio,
    repetitions,
    short,
    table,
    times,
    title,
    unit,
)

#: The rows that a newcomer sees, one of them a loss, and their names there.
ROWS = {
    "uvicorn": "uvicorn with httptools, requests/s",
    "fastapi_def": "FastAPI, a plain `def` endpoint, requests/s",
    "echo_protocol_64x1k": "TCP echo of 1 KiB, CPU us",
    "executor_64": "`run_in_executor`, 64 in flight, us",
    "idle_tls": "an idle TLS connection, KiB",
    "import": "import and make a loop, ms",
}
#: What people run, and the rows that are nearest to it.
USES = {
    "fastapi_def": "a FastAPI service, plain `def`",
    "fastapi_sqlalchemy": "a FastAPI service with a database",
    "uvicorn": "an ASGI application that replies immediately",
    "chat": "a websocket server",
    "redis_32": "a redis worker, many jobs at a time",
    "redis_1": "a redis worker, one job at a time",
    "downloads": "a scraper",
    "tokens_each_256_cpu": "an LLM or MCP server that streams",
    "executor_64": "jobs in threads",
    "new_loop": "a pytest suite, the loop of a test",
    "import": "a script, until its loop runs",
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
FOUR = (*BASES, "zuvloop", "fastloop")
THREADS = "two threads over one, "
#: A ratio over a peer from which on the two are called even: so far do runs
#: differ.
EVEN = 0.97
#: How far apart counts may be that are called even: a part of the greater, or
#: calls that one operation of many makes.
EVEN_PART, EVEN_COUNT = 0.02, 0.05
#: The rows of a run, by their keys.
Rows = dict[str, dict]


# -- one row ------------------------------------------------------------------


def with_spread(row: dict, loop: str) -> str:
    """Return a figure and how far repetitions lie from each other."""
    own, each = of(row, loop, "figure"), repetitions(row, loop)
    text = cell(row, loop)
    if len(each) < 2 or not own or text.endswith("failed"):
        return text
    part = (max(each) - min(each)) / 2 / own
    return f"{text} ±{100 * part:.0f} %"


def place(row: dict, peer: str = "") -> str:
    """Return fastloop's place against a peer: the best if none is named.

    "" stands for a row in which loops do not race, or the peer is missing.
    """
    peer = peer or best_peer(row)
    if row["aside"] or not is_measured(row, peer):
        return ""
    if not is_measured(row, "fastloop"):
        return "not measured"
    found = against(row, peer)
    if found and found.is_within(EVEN):
        return "even"
    if found and found.low_95 > 1:
        return "first"
    return "**behind**" if found and found.high_95 < 1 else "inconclusive"


def over_best(row: dict) -> str:
    """Return the mean ratio over the best peer, and its interval."""
    peer = best_peer(row)
    found = against(row, peer)
    if not found:
        return over(peer)(row)
    low, high = times(found.low_95), times(found.high_95)
    return f"{times(found.ratio)} ({low} to {high})"


def counts(row: dict, loop: str, glue: str) -> str:
    """Return a loop's counts in a row; "" without."""
    found = row.get("counts", {}).get(loop, {})
    return glue.join(short(found[kind]) for kind in KINDS if kind in found)


def counted(row: dict, kind: str) -> tuple[float | None, float | None, str]:
    """Return fastloop's count in a row, the least of a peer, and whose it
    is."""
    every = row.get("counts", {}).items()
    found = {loop: each[kind] for loop, each in every if kind in each}
    own = found.pop("fastloop", None)
    peer = min(found, key=found.__getitem__, default="")
    return own, found.get(peer), peer


def count_cell(row: dict, kind: str) -> str:
    """Return fastloop's count in a row, and the least of a peer."""
    own, least, peer = counted(row, kind)
    if own is None or least is None:
        return short(own)
    return f"{short(own)} ({peer} {short(least)})"


def count_place(row: dict, kind: str) -> str:
    """Return fastloop's place by a count, or ""."""
    own, least, _ = counted(row, kind)
    if own is None or least is None:
        return ""
    if abs(own - least) <= max(EVEN_COUNT, EVEN_PART * max(own, least)):
        return "even"
    return "first" if own < least else "behind"


def beside(row: dict, loop: str) -> str:
    """Return a loop's figure, and how many times as good fastloop's is."""
    own, ratio = cell(row, loop), over(loop)(row)
    failed = own.endswith("failed")
    return f"{own} ({ratio})" if ratio and not failed else own


def peer_beside(row: dict) -> str:
    return f"{(peer := best_peer(row))} {beside(row, peer)}"


def peer_over_uvloop(row: dict) -> str:
    peer = best_peer(row)
    return f"{peer} {over('uvloop', peer)(row)}".strip()


#: The columns of RESULTS.md, and of other pages.
RESULTS: Columns = {
    "unit": unit,
    "fastloop": partial(with_spread, loop="fastloop"),
    **{f"over {base}": over(base) for base in (*BASES[::-1], "zuvloop")},
    "best peer": peer_over_uvloop,
    "over the best": over_best,
    "instructions": partial(count_cell, kind=INSTRUCTIONS),
    "system calls": partial(count_cell, kind=CALLS),
    "place": place,
}
OTHERS: Columns = {
    "unit": unit,
    "fastloop": partial(cell, loop="fastloop"),
    **by_loop(BASES, beside),
    "best peer": peer_beside,
}


# -- sentences ----------------------------------------------------------------


def told(head: str, places: Iterable[str], words: dict[str, str]) -> list[str]:
    """Return a sentence that counts places, in these words; none without."""
    counted = Counter(filter(None, places))
    parts = [
        f"{text} in {counted[where]}"
        for where, text in words.items()
        if counted[where]
    ]
    count = f"{listed(parts)} of {counted.total()} rows" if parts else ""
    return [f"{head}, fastloop is {count}."] if parts else []


def sentences(rows: list[dict]) -> list[str]:
    """Return the places against asyncio, uvloop and the best of all peers."""
    loops = {loop for row in rows for loop in row["loops"]}
    # aiofastnet is one peer, over asyncio's loop and over uvloop.
    peers = {loop.removesuffix("-uvloop") for loop in loops} & {*LOOPS}
    best_of_all = (
        "Against the best peer of a row, which is whichever of the "
        f"{len(peers - {'fastloop'})} others did best there"
    )
    out = []
    for head, peer, better, worse in (
        ("Against asyncio", "asyncio", "faster", "slower"),
        ("Against uvloop", "uvloop", "faster", "slower"),
        (best_of_all, "", "first", "behind"),
    ):
        words = {
            "first": better,
            "**behind**": worse,
            "even": f"even (within {1 - EVEN:.0%})",
            "inconclusive": "inconclusive",
            "not measured": "not measured",
        }
        out += told(head, (place(row, peer) for row in rows), words)
    return out


def on(machine: dict) -> str:
    """Say where the run was made."""
    python = ".".join(machine["python"].split(".")[:2])
    return f"CPython {python}, {len(machine['cpus'])} CPUs"


def facts(machine: dict, places: str) -> str:
    """Return what the figures of a table are, and places."""
    return (
        f"{on(machine)}. In brackets: how many times as good fastloop is, the "
        f"one figure divided by the other. {places} A row is even if the 95 % "
        "interval of the mean ratio of samples of the same time lies within "
        "3 % of 1, and inconclusive if it includes 1 and is wider."
    )


# -- RESULTS.md ---------------------------------------------------------------


def not_measured(data: dict) -> list[str]:
    machine = data["machine"]
    missing = {**machine["without_loops"], **machine["without"]}
    for row in data["rows"]:
        for loop, found in row["loops"].items():
            if found["error"]:
                missing[f"{row['case']} on {loop}"] = found["error"]
    lines = [f"- {name}: {reason}" for name, reason in missing.items()]
    if data["cut"]:
        lines.append(f"- The run is not complete: {data['cut']}.")
    return lines


def plain(data: dict) -> str:
    """Return a run's figures for a terminal, and what is missing."""
    rows = data["rows"]
    columns = by_loop(data["machine"]["loops"], cell)
    columns |= {f"over {base}": over(base) for base in BASES}
    lines = filled(rows, title() | {"unit": unit}, columns)
    missing = ["", *not_measured(data), ""]
    return "\n".join([*aligned(lines, math.inf), *notes(rows), *missing])


def described(data: dict) -> list[str]:
    """Return the machine, the versions and the settings, a line each."""
    machine, settings = data["machine"], data["settings"]
    names = {**machine["packages"], **machine["loops"]}
    names.pop("asyncio", None)
    versions = [f"{name} {version}" for name, version in names.items()]
    load = ", ".join(f"{value:.1f}" for value in machine["load_before"])
    repeat = f"{settings['repeat']} repetitions"
    if parts := data.get("parts"):
        # tools/race waits for that.
        quiet = "each begun while others used at most 3 % of the CPUs"
        each = ", ".join(f"{name} {most}" for name, most in parts.items())
        repeat = f"parts, {quiet}, with so many repetitions: {each}"
    return [
        f"- {machine['date']}; {machine['cpu']}, {len(machine['cpus'])} CPUs, "
        f"{machine['system']}, {machine['libc']}; load before: {load}",
        f"- CPython {machine['python']}, {machine['openssl']}",
        f"- {', '.join(versions)}",
        f"- {repeat}, alternating; lengths times {settings['scale']:g}",
    ]


def summary(rows: list[dict]) -> list[str]:
    """Return in how many rows fastloop has each place, and which rows
    it loses or are inconclusive."""
    out = sentences(rows)
    words = {place: place for place in ("first", "even", "behind")}
    for kind, name in (
        (INSTRUCTIONS, "user instructions"),
        (CALLS, "system calls"),
    ):
        places = [count_place(row, kind) for row in rows if not row["aside"]]
        out += told(f"By {name} for an operation", places, words)
    out = [f"- {sentence}" for sentence in out]
    for head, where, peer in (
        ("Rows that fastloop loses", "**behind**", ""),
        ("Inconclusive rows", "inconclusive", ""),
        ("Rows slower than asyncio", "**behind**", "asyncio"),
        ("Rows slower than uvloop", "**behind**", "uvloop"),
    ):
        found = [row for row in rows if place(row, peer) == where]
        out += ["", f"{head}:", ""] if found else []
        for row in found:
            more = "" if peer else f": {over_best(row)} of {best_peer(row)}"
            out.append(f"- {row['title']}{more}")
    return out


def text(data: dict) -> str:
    rows = data["rows"]
    loops = data["machine"]["loops"]
    lines = described(data)
    if also := data.get("also"):
        lines += ["", "Two loops in two threads:", "", *described(also)]
    out = [
        "# The race",
        "",
        "`make race` writes this page: what it measures and how is in "
        "[README.md](README.md).",
        "",
        *lines,
        "",
        "A ratio is times as good, above 1 is better. Those of *over uvloop*, "
        "*over asyncio* and *over zuvloop* (fastloop's) and *best peer* (that "
        "peer's over uvloop) divide two [figures of this page]"
        "(#every-loops-figures); the best peer has the best one. *over the "
        "best* and the lists have the mean of the ratios of samples of the "
        "same time, with its 95 % interval, which decides the *place*: it may "
        "differ from the quotient. Where no interval is, it is the quotient. "
        "*instructions* (of user code) and *system calls* are counts for an "
        "operation (a MiB where the unit is us/MiB), with the least of a "
        "peer. Rows without a place explain the row beside them.",
        "",
        "## In short",
        "",
        *summary(rows),
        "",
        "## Rows",
    ]
    for group, name in GROUPS.items():
        if own := [row for row in rows if row["group"] == group]:
            lines = table(own, title(), RESULTS)
            out += ["", f"### {name}", "", *lines, *notes(own)]
    head = title() | {"unit": unit}
    figures = table(rows, head, by_loop(loops, with_spread))
    out += ["", "## Every loop's figures", "", *figures]
    by_count = by_loop(loops, partial(counts, glue="; "))
    if lines := table(rows, title(), by_count):
        out += ["", "## Every loop's counts", ""]
        out += ["User instructions; system calls, for an operation.", ""]
        out += lines
    if missing := not_measured(data):
        out += ["", "## Not measured", "", *missing]
    return "\n".join(out) + "\n"


# -- other pages --------------------------------------------------------------


def picked(rows: Rows, names: dict[str, str]) -> list[dict]:
    """Return rows with their names as titles; raise ValueError where one
    lacks a ratio."""
    for key in names:
        row = rows.get(key)
        if not row or not all(ratio(row, "fastloop", one) for one in BASES):
            raise ValueError(f"the run has no ratios of {key}")
    return [{**rows[key], "title": name} for key, name in names.items()]


def expected(rows: Rows) -> str:
    """Return what a user may expect."""
    each = (
        [ratio(row, "fastloop", "asyncio") for row in picked(rows, keys)]
        for keys in (dict.fromkeys(AT_ONCE, ""), dict.fromkeys(FASTAPI, ""))
    )
    servers, fastapi = (
        " to ".join(dict.fromkeys(f"{end(one):.1f}" for end in (min, max)))
        for one in each
    )
    return (
        f"A server that replies immediately reaches {servers} times asyncio's "
        f"rate, FastAPI {fastapi} times. A program that computes gains "
        "nothing."
    )


def newcomer(rows: Rows, machine: dict) -> list[str]:
    """Return six rows, and how many of all fastloop wins and loses."""

    def best(row: dict) -> str:
        return f"{cell(row, best_peer(row))} ({best_peer(row)})"

    columns = by_loop(["fastloop"], cell) | by_loop(BASES, cell)
    columns["best other"] = best

    def tally(base: str) -> str:
        found = Counter(filter(None, (place(row, base) for row in every)))
        won, lost = found["first"], found["**behind**"]
        rows = f"{won} of {found.total()} rows"
        return f"faster than {base} in {rows}, slower in {lost}"

    every = [*rows.values()]
    text = (
        f"{on(machine)}. {expected(rows)} fastloop is {tally('asyncio')}; "
        f"{tally('uvloop')}."
    )
    return [
        *table(picked(rows, ROWS), title(""), columns),
        "",
        *textwrap.wrap(text, 79),
    ]


def by_use(rows: Rows, machine: dict) -> list[str]:
    """Return a table of what people run, and places against the best."""
    uses = {
        key: f"{name}: *{rows.get(key, {}).get('title')}*"
        for key, name in USES.items()
    }
    lines = table(
        picked(rows, uses), title("you run: *the row behind it*"), OTHERS
    )
    text = facts(machine, sentences([*rows.values()])[-1])
    return [*textwrap.wrap(f"{expected(rows)} {text}", 79), "", *lines]


def of_loops(
    rows: list[dict],
    head: str,
    loops: Iterable[str],
    cell: Callable[[dict, str], str],
    facts: str = "",
) -> list[str]:
    """Return a table of what `cell` says of loops, and facts; raise ValueError
    where none was measured.
    """
    lines = table(rows, title(head), by_loop(loops, cell))
    if not lines:
        raise ValueError(f"the run has no row of {head}")
    return [*lines, *([""] if facts else []), *textwrap.wrap(facts, 79)]


def threads(rows: Rows, machine: dict) -> list[str]:
    """Return a table of two threads."""
    found = [
        {**row, "title": row["title"].removeprefix(THREADS)}
        for row in rows.values()
        if row["title"].startswith(THREADS)
    ]
    head = "two threads over one"
    return of_loops(found, head, ("asyncio", "fastloop"), cell)


def tokens(rows: Rows, machine: dict) -> list[str]:
    """Return a table of streams of tokens."""

    def told(row: dict, loop: str) -> str:
        cpu, p99 = (
            cell(rows[f"{row['case']}_{name}"], loop)
            for name in ("cpu", "p99")
        )
        if cpu.endswith("failed"):
            return "failed"
        return cpu and f"{cpu}; {p99}"

    too_much = " streams of.*?(?=,)|, server.*"
    found = [
        {**row, "title": re.sub(too_much, "", row["title"])}
        for row in rows.values()
        if row["row"] == f"{row['case']}_cpu" and row["group"] == "tokens"
    ]
    facts = (
        f"{on(machine)}. The server's CPU time for a token, in microseconds; "
        "the p99 of how late a token is, in milliseconds."
    )
    return of_loops(found, "streams of tokens", FOUR, told, facts)


def late(rows: Rows, machine: dict) -> list[str]:
    """Return a table of waits."""

    def waits(row: dict, loop: str) -> str:
        own, most = cell(row, loop), cell(rows[f"{row['row']}_most"], loop)
        return own if own in ("", most) else f"{own} ({most})"

    facts = (
        f"{on(machine)}. The median wait, and in brackets the greatest of all."
    )
    judged = [
        row
        for row in rows.values()
        if row["group"] == "late" and not row["aside"]
    ]
    return of_loops(judged, "milliseconds", FOUR, waits, facts)


#: The pages that quote a run, their marks, and what stands between them.
PAGES = (
    ("README.md", "race", newcomer),
    ("docs/performance.md", "race", by_use),
    ("docs/performance.md", "late", late),
    ("docs/performance.md", "tokens", tokens),
    ("docs/one-process-many-loops.md", "race", threads),
)


def write(folder: str, data: dict) -> list[str]:
    """Write what the pages in a folder say of a run.

    Each part stands between `<!-- MARK: begin -->` and its end.  Returns what
    is wrong, a sentence for each part that is left as it is.
    """
    rows = {row["row"]: row for row in data["rows"]}
    wrong = []
    for name, mark, make in PAGES:
        try:
            block = "\n".join(["", *make(rows, data["machine"]), "", ""])
            begin, end = (f"<!-- {mark}: {it} -->" for it in ("begin", "end"))
            page = Path(folder, name).read_text()
            before, _, rest = page.partition(f"{begin}\n")
            _, found, after = rest.partition(end)
            if not found or begin in after:
                raise ValueError("it has no such section")
            page = f"{before}{begin}\n{block}{end}{after}"
            Path(folder, name).write_text(page)
        except (ValueError, OSError) as error:
            wrong.append(f"{mark} in {name} is left as it is: {error}")
    return wrong
