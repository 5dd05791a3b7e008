"""Writes a run as a page of Markdown.

Rows of the run beside it, on another interpreter, have a table of their own.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable

from fastloop.cli.options import listed
from harness.case import GROUPS
from harness.counts import CALLS, INSTRUCTIONS, KINDS
from harness.loops import LOOPS
from harness.report import (
    EVEN,
    against,
    best_peer,
    by_loop,
    cell,
    figure,
    is_measured,
    notes,
    ratio,
    repetitions,
    short,
    table,
    times,
)

# How far apart counts may be that are called even: a part of the greater, or
# calls that one operation of many makes.
EVEN_PART, EVEN_COUNT = 0.02, 0.05
HEAD = (
    "row",
    "unit",
    "fastloop",
    "over uvloop",
    "over asyncio",
    "over zuvloop",
    "best peer",
    "over the best",
    "instructions",
    "system calls",
    "place",
)


# -- one row ------------------------------------------------------------------


def with_spread(row: dict, loop: str) -> str:
    """Return a figure and how far repetitions lie from each other."""
    own, each = figure(row, loop), repetitions(row, loop)
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
    """Return the ratio over the best peer, and the interval that decides."""
    peer = best_peer(row)
    over = times(ratio(row, "fastloop", peer))
    found = against(row, peer) if over else None
    if not found:
        return over
    # Two repetitions may leave a ratio open to thousands.
    high = (
        times(found.high_95) if found.high_95 < 100 else short(found.high_95)
    )
    return f"{over} ({found.low_95:.2f} to {high})"


def counted(row: dict, kind: str) -> tuple[float | None, float | None, str]:
    """Return fastloop's count in a row, the least of a peer, and whose it
    is."""
    counts = row.get("counts", {}).items()
    found = {loop: each[kind] for loop, each in counts if kind in each}
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


def line(row: dict) -> list[str]:
    peer = best_peer(row)
    return [
        row["title"],
        row["unit"],
        with_spread(row, "fastloop"),
        times(ratio(row, "fastloop", "uvloop")),
        times(ratio(row, "fastloop", "asyncio")),
        times(ratio(row, "fastloop", "zuvloop")),
        f"{peer} {times(ratio(row, peer, 'uvloop'))}".strip(),
        over_best(row),
        count_cell(row, INSTRUCTIONS),
        count_cell(row, CALLS),
        place(row),
    ]


# -- the page -----------------------------------------------------------------


def by_group(rows: list[dict]) -> list[str]:
    out: list[str] = []
    for group, title in GROUPS.items():
        own = [row for row in rows if row["group"] == group]
        if own:
            lines = table([HEAD, *map(line, own)])
            out += ["", f"### {title}", "", *lines, *notes(own)]
    return out


def all_figures(data: dict) -> list[str]:
    head, loops = ["row", "unit"], data["machine"]["loops"]
    return table(by_loop(data["rows"], head, loops, with_spread))


def all_counts(data: dict) -> list[str]:
    """Return the table of every loop's counts; none without counts."""

    def both(row: dict, loop: str) -> str:
        counts = row.get("counts", {}).get(loop, {})
        return "; ".join(short(counts.get(kind)) for kind in KINDS).strip("; ")

    loops = data["machine"]["loops"]
    return table(by_loop(data["rows"], ["row"], loops, both))


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


def described(data: dict) -> list[str]:
    """Return the machine, the versions and the settings, a line each."""
    machine, settings = data["machine"], data["settings"]
    names = {**machine["packages"], **machine["loops"]}
    versions = [
        f"{name} {version}"
        for name, version in names.items()
        if name != "asyncio"
    ]
    load = ", ".join(f"{value:.1f}" for value in machine["load_before"])
    repeat, more = f"{settings['repeat']} repetitions", settings["more"]
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
        f"- {repeat}, alternating"
        + (f", and up to {more} more of inconclusive cases" if more else "")
        + f"; lengths times {settings['scale']:g}",
    ]


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


def count_sentences(rows: list[dict]) -> list[str]:
    """Return the places by counts, against the least peer of each row."""
    words = {place: place for place in ("first", "even", "behind")}
    judged = [row for row in rows if not row["aside"]]
    out = []
    for kind, name in (
        (INSTRUCTIONS, "user instructions"),
        (CALLS, "system calls"),
    ):
        places = (count_place(row, kind) for row in judged)
        out += told(f"By {name} for an operation", places, words)
    return out


def summary(rows: list[dict]) -> list[str]:
    """Return in how many rows fastloop has each place, and which rows
    it loses or are inconclusive."""
    judged = [row for row in rows if place(row)]
    out = [f"- {one}" for one in (*sentences(rows), *count_sentences(rows))]
    for where, head in (
        ("**behind**", "Rows that fastloop loses:"),
        ("inconclusive", "Inconclusive rows:"),
    ):
        found = [row for row in judged if place(row) == where]
        out += ["", head, ""] if found else []
        out += [
            f"- {row['title']}: {over_best(row)} of {best_peer(row)}"
            for row in found
        ]
    for peer in ("asyncio", "uvloop"):
        slower = [row for row in judged if place(row, peer) == "**behind**"]
        out += ["", f"Rows slower than {peer}:", ""] if slower else []
        out += [f"- {row['title']}" for row in slower]
    return out


def rows_of_one(data: dict, also: dict | None) -> list[dict]:
    """Return the rows that the run beside it does not have."""
    measured = {row["row"] for row in also["rows"]} if also else set()
    return [row for row in data["rows"] if row["row"] not in measured]


def text(data: dict, also: dict | None = None) -> str:
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
        "A ratio is times as good, above 1 is better: it divides two [figures "
        "of this page](#every-loops-figures). *over uvloop*, *over asyncio* "
        "and *over zuvloop* are fastloop's, *best peer* is that peer's over "
        "uvloop, *over the best* is fastloop's over that peer. The 95 % "
        "interval in brackets is of the ratios of samples of the same time: "
        "it decides the *place*, and may exclude the ratio beside it. "
        "*instructions* (of user code) and *system calls* are counts for an "
        "operation (a MiB where the unit is us/MiB), with the least of a "
        "peer. Rows without a place explain the row beside them.",
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
        out += table([HEAD, *map(line, others)])
    out += ["", "## Every loop's figures", "", *all_figures(data)]
    if also:
        out += ["", *all_figures(also)]
    if counts := all_counts(data):
        out += ["", "## Every loop's counts", ""]
        out += ["User instructions; system calls, for an operation.", ""]
        out += counts
    missing = not_measured(data) + (not_measured(also) if also else [])
    if missing:
        out += ["", "## Not measured", "", *dict.fromkeys(missing)]
    return "\n".join(out) + "\n"
