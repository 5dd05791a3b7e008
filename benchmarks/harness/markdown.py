"""Writes a run as a page of Markdown, from the JSON that the run gives.

    python benchmarks/harness/markdown.py RUN.json [ANOTHER.json] >RESULTS.md

Every row is there: one that could not be measured says why, and one that
fastloop loses says so.  Rows of the other run, on another interpreter, have
a table of their own.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

sys.path[:1] = [str(Path(__file__).resolve().parents[1])]

from harness.loops import C_SERVERS, PYTHON_LOOPS  # noqa: E402
from harness.report import short  # noqa: E402

TITLES = {
    "core": "The loop itself",
    "scale": "A great many at once",
    "tcp": "TCP and TLS echo, 1 to 1,000 connections",
    "tls": "TLS",
    "streams": "Streams, and bytes one way",
    "sockets": "sock_*, connections, UDP, Unix, pipes, processes",
    "memory": "Memory",
    "http": "HTTP servers",
    "apps": "Applications",
    "tail": "Tail latency and fairness",
    "startup": "Start",
}
# A ratio over the best peer from which on the two are called even: so far do
# runs differ.
EVEN = 0.97
HEAD = (
    "row",
    "unit",
    "fastloop",
    "over uvloop",
    "asyncio",
    "best peer",
    "over the best",
    "plain C",
    "reach",
    "place",
)


def figure(row: dict, loop: str) -> float | None:
    """Return what stands for `loop` in a row."""
    return row["loops"].get(loop, {}).get("figure")


def ratio(row: dict, loop: str, base: str) -> float | None:
    """Return how many times as good as `base` the `loop` is."""
    own, other = figure(row, loop), figure(row, base)
    if row["better"] == "near 0" or not own or not other:
        return None
    return own / other if row["better"] == "more" else other / own


def best(row: dict, loops: tuple[str, ...]) -> str:
    """Return the best of `loops` in a row, "" where none was measured."""
    found = [loop for loop in loops if figure(row, loop)]
    if not found or row["better"] == "near 0":
        return ""
    pick = max if row["better"] == "more" else min
    return pick(found, key=lambda loop: figure(row, loop))


def best_peer(row: dict) -> str:
    """Return the best loop that is not fastloop."""
    peers = [loop for loop in PYTHON_LOOPS if loop != "fastloop"]
    return best(row, tuple(peers))


def spread(row: dict, loop: str) -> str:
    """Return how far repetitions lie from each other, as "±N %"."""
    each = [
        one["figure"]
        for one in row["loops"].get(loop, {}).get("repetitions", ())
    ]
    if len(each) < 2 or not figure(row, loop):
        return ""
    part = (max(each) - min(each)) / 2 / abs(figure(row, loop))
    return f" ±{100 * part:.0f} %"


def place(row: dict) -> str:
    """Return "first", "even", "**lost**", or why there is none."""
    if figure(row, "fastloop") is None:
        return "not measured"
    if row["aside"]:
        return ""
    over = ratio(row, "fastloop", best_peer(row) or "fastloop")
    if over is None or not best_peer(row):
        return ""
    if over >= 1:
        return "first"
    return "even" if over >= EVEN else "**lost**"


def reaches(row: dict) -> bool | None:
    """Say whether fastloop reaches what it is meant to; None: no aim."""
    aim, own = row["reach"], figure(row, "fastloop")
    if not aim or own is None:
        return None
    if aim.endswith("x"):
        over = ratio(row, "fastloop", "uvloop")
        return None if over is None else over >= float(aim[:-1])
    if row["better"] == "more":
        return own >= float(aim)
    return own <= float(aim)


def times(value: float | None) -> str:
    """Return a ratio as text."""
    return "" if value is None else f"{value:.2f}"


def line(row: dict) -> list[str]:
    """Return the cells of a row."""
    peer, limit = best_peer(row), best(row, tuple(C_SERVERS))
    over = ratio(row, peer, "uvloop") if peer else None
    plain = ratio(row, limit, "uvloop") if limit else None
    aim = row["reach"].replace("x", "")
    if aim and not row["reach"].endswith("x"):
        aim += f" {row['unit']}"
    return [
        row["title"],
        row["unit"],
        short(figure(row, "fastloop")) + spread(row, "fastloop"),
        times(ratio(row, "fastloop", "uvloop")),
        times(ratio(row, "asyncio", "uvloop")),
        f"{peer} {times(over)}".strip(),
        times(ratio(row, "fastloop", peer)) if peer else "",
        f"{limit} {times(plain)}" if limit else "",
        aim if reaches(row) is not False else f"{aim} (short)",
        place(row),
    ]


def table(head: tuple[str, ...], lines: list[list[str]]) -> list[str]:
    """Return a table, its first column to the left."""
    rule = ["---", *["---:"] * (len(head) - 1)]
    return [f"| {' | '.join(cells)} |" for cells in (head, rule, *lines)]


def by_group(rows: list[dict]) -> list[str]:
    """Return a table for each group of rows."""
    out: list[str] = []
    for group, title in TITLES.items():
        own = [row for row in rows if row["group"] == group]
        if own:
            out += ["", f"### {title}", "", *table(HEAD, list(map(line, own)))]
    return out


def all_figures(data: dict) -> list[str]:
    """Return the table of every loop's figure and spread."""
    loops = [
        loop
        for loop in (*PYTHON_LOOPS, *C_SERVERS)
        if loop in data["machine"]["loops"]
    ]
    lines = []
    for row in data["rows"]:
        cells = [
            short(figure(row, loop)) + spread(row, loop) for loop in loops
        ]
        lines.append([row["title"], row["unit"], *cells])
    return table(("row", "unit", *loops), lines)


def not_measured(data: dict) -> list[str]:
    """Return what is missing, and why, a line each."""
    machine = data["machine"]
    lines = [
        f"- {loop}: {reason}"
        for loop, reason in machine["without_loops"].items()
    ]
    lines += [
        f"- {name}: {reason}" for name, reason in machine["without"].items()
    ]
    for row in data["rows"]:
        for loop, found in row["loops"].items():
            if found["error"]:
                lines.append(f"- {row['case']} on {loop}: {found['error']}")
    if data["cut"]:
        lines.append(f"- The run is not complete: {data['cut']}.")
    return list(dict.fromkeys(lines))


def described(data: dict) -> list[str]:
    """Return the machine, the versions and the settings, a line each."""
    machine, settings = data["machine"], data["settings"]
    names = {**machine["packages"], **machine["loops"]}
    versions = [
        f"{name} {version}"
        for name, version in names.items()
        if version != "C" and name != "asyncio"
    ]
    load = [f"{value:.1f}" for value in machine["load_before"]]
    return [
        f"- {machine['date']}; {machine['cpu']}, {len(machine['cpus'])} CPUs, "
        f"{machine['system']}, {machine['libc']}; load before: "
        + ", ".join(load),
        f"- CPython {machine['python']}, {machine['openssl']}",
        f"- {', '.join(versions)}",
        f"- {settings['repeat']} repetitions, alternating; lengths times "
        f"{settings['scale']:g}",
    ]


def summary(rows: list[dict]) -> list[str]:
    """Return in how many rows fastloop is first, and which it loses."""
    places = [(place(row), row) for row in rows if not row["aside"]]
    judged = [(where, row) for where, row in places if where]
    out = []
    for where, text in (
        ("first", "first"),
        ("even", f"even with the best peer (within {1 - EVEN:.0%})"),
        ("**lost**", "behind"),
        ("not measured", "not measured"),
    ):
        count = sum(found == where for found, _ in judged)
        out.append(f"- {text}: {count} of {len(judged)} rows")
    lost = [row for where, row in judged if where == "**lost**"]
    if lost:
        out += ["", "Rows that fastloop loses:", ""]
    for row in lost:
        peer = best_peer(row)
        over = ratio(row, "fastloop", peer)
        out.append(f"- {row['title']}: {times(over)} of {peer}")
    short_of = [row for row in rows if reaches(row) is False]
    if short_of:
        out += ["", "Rows short of what they are meant to reach:", ""]
    for row in short_of:
        own = figure(row, "fastloop")
        found = f"{short(own)} {row['unit']}"
        if row["reach"].endswith("x"):
            found = times(ratio(row, "fastloop", "uvloop"))
        aim = row["reach"].replace("x", "")
        out.append(f"- {row['title']}: {found}, meant: {aim}")
    return out


def rows_of_one(data: dict, also: dict | None) -> list[dict]:
    """Return the rows that the run beside it does not have."""
    measured = {row["row"] for row in also["rows"]} if also else set()
    return [row for row in data["rows"] if row["row"] not in measured]


def all_rows(data: dict, also: dict | None = None) -> list[dict]:
    """Return the rows of both runs."""
    return rows_of_one(data, also) + (also["rows"] if also else [])


def text(data: dict, also: dict | None = None) -> str:
    """Return the page."""
    rows = rows_of_one(data, also)
    others = also["rows"] if also else []
    for name in {row["case"] for row in others}:
        data["machine"]["without"].pop(name, None)
    out = [
        "# The race",
        "",
        "`make race` writes this page: what it measures and how is in "
        "[README.md](README.md).",
        "",
        *described(data),
        "",
        "A ratio is times as good, above 1 is better. *asyncio*, *best peer* "
        "and *plain C* are over uvloop of the same run. ± is half the "
        "distance of the repetitions. *reach* is the aim. Rows without a "
        "place explain the row beside them.",
        "",
        "## In short",
        "",
        *summary(rows + others),
        "",
        "## Rows",
        *by_group(rows),
    ]
    if also:
        out += ["", "### Two loops in two threads, without a GIL", ""]
        out += [*described(also), ""]
        out += table(HEAD, list(map(line, others)))
    out += ["", "## Every loop's figures", "", *all_figures(data)]
    if also:
        out += ["", *all_figures(also)]
    missing = not_measured(data) + (not_measured(also) if also else [])
    if missing:
        out += ["", "## Not measured", "", *dict.fromkeys(missing)]
    return "\n".join(out) + "\n"


if __name__ == "__main__":
    print(text(*(json.loads(Path(name).read_text()) for name in sys.argv[1:])))
