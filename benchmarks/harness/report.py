"""The figures of a run as rows of JSON, and what they say.

README.md has the method: of ratios that are shown, and of those that decide a
place.
"""

from __future__ import annotations

import statistics
from collections.abc import Callable, Iterable, Sequence
from typing import TextIO

from fastloop.cli.compare import Comparison, mean, of_ratios, times_as_good
from fastloop.cli.compare import figure as in_digits
from harness.case import Case
from harness.loops import LOOPS

# What is compared with.
BASES = ("uvloop", "asyncio")
# A ratio over the best peer from which on the two are called even: so far do
# runs differ.
EVEN = 0.97
#: What a reader has to know of rows, by their keys.
NOTES = {
    "getaddrinfo": "no connection makes this call for a literal",
    "connect": "rloop 0.5.0 left the sockets of 57 to 241 of 300 open",
    "pipe": "rsloop reads in a second thread, whose CPU time counts too",
    "fastapi_sqlalchemy": "64 clients share a pool of 5 connections; 10 more "
    "come and go, one in some 30 answers",
    "asyncpg_32": "a loop that needs less CPU sleeps more, and both sides pay",
}


# -- one row ------------------------------------------------------------------


def new_rows(case: Case) -> list[dict]:
    return [
        {
            "case": case.name,
            "group": case.group,
            "row": row.key,
            "title": row.title,
            "unit": row.unit,
            "judge": row.judge,
            "aside": row.aside,
            "better": row.better,
            "loops": {},
        }
        for row in case.rows
    ]


def keep(row: dict, loop: str, answer: dict) -> None:
    """Add to a row what a worker answered: a figure, or why there is none."""
    nothing = {"figure": None, "repetitions": [], "error": None}
    found = row["loops"].setdefault(loop, nothing)
    if "error" in answer:
        found["error"] = " ".join(answer["error"].split()).removesuffix(":")
        return
    found["repetitions"].append(answer["figures"][row["row"]])
    stands_for = {"least": min, "median": statistics.median, "most": max}
    found["figure"] = stands_for[row["judge"]](repetitions(row, loop))


def figure(row: dict, loop: str) -> float | None:
    return row["loops"].get(loop, {}).get("figure")


def paired(own: dict, base: dict, better: str) -> float:
    """Return how many times as good as base the figure own is.

    Samples that were taken in turns are compared one by one.
    """
    pairs = [(own["figure"], base["figure"])]
    samples = own.get("samples", ()), base.get("samples", ())
    if len(samples[0]) == len(samples[1]) > 1:
        pairs = list(zip(*samples, strict=True))
    return mean([times_as_good(a, b, better) for a, b in pairs if a > 0 < b])


def ratios(row: dict, loop: str, base: str) -> list[float]:
    """Return how many times as good as `base` the `loop` is, by repetition.

    One of the two may have failed, and has no figure from then on.
    """
    own, other = (
        row["loops"].get(name, {}).get("repetitions", ())
        for name in (loop, base)
    )
    each = zip(own, other, strict=False)
    return [paired(mine, theirs, row["better"]) for mine, theirs in each]


def shown(row: dict, loop: str) -> float:
    """Return the figure of `loop` as a reader sees it; 0 without one."""
    return float(short(figure(row, loop)).replace(",", "") or 0)


def ratio(row: dict, loop: str, base: str) -> float | None:
    """Return how many times as good as `base` the `loop` is, for a page."""
    own, other = shown(row, loop), shown(row, base)
    if not own or not other:
        return None
    return times_as_good(own, other, row["better"])


def repetitions(row: dict, loop: str) -> list[float]:
    """Return the figures of `loop` in a row, in the order of their time."""
    found = row["loops"].get(loop, {}).get("repetitions", ())
    return [one["figure"] for one in found]


def against(row: dict, peer: str) -> Comparison | None:
    """Compare fastloop with `peer`, repetition by repetition.

    None where there are fewer than two repetitions of both, and where the
    greatest of all is shown.
    """
    if row["judge"] == "most":
        return None
    return of_ratios(ratios(row, "fastloop", peer))


def is_measured(row: dict, loop: str) -> bool:
    found = row["loops"].get(loop, {})
    return found.get("figure") is not None and not found.get("error")


def best(row: dict, loops: Iterable[str]) -> str:
    """Return the best of `loops` in a row, "" where none was measured.

    They are compared by their ratios over one loop, fastloop where it has a
    figure, of samples of the same time.  One that failed is not: few figures
    may have been lucky.
    """
    found = [loop for loop in loops if is_measured(row, loop)]
    if not found:
        return ""
    base = "fastloop" if figure(row, "fastloop") else found[0]
    return max(found, key=lambda loop: mean(ratios(row, loop, base)))


def best_peer(row: dict) -> str:
    return best(row, [loop for loop in LOOPS if loop != "fastloop"])


def is_certain(row: dict) -> bool:
    """Say whether fastloop's place against the best peer is."""
    peer = best_peer(row)
    if not peer or not is_measured(row, "fastloop"):
        return True
    found = against(row, peer)
    return found is not None and (found.sure or found.is_within(EVEN))


def short(value: float | None) -> str:
    """Return `value` with three digits that matter."""
    return "" if value is None else in_digits(value)


def notes(rows: list[dict]) -> list[str]:
    """Return the notes of rows, in lines with an empty one before them."""
    noted = [row for row in rows if row["row"] in NOTES]
    lines = [f"- {row['title']}: {NOTES[row['row']]}" for row in noted]
    return ["", *lines] if lines else []


def times(value: float | None) -> str:
    return "" if value is None else f"{value:.2f}"


def cell(row: dict, loop: str) -> str:
    """Return a loop's figure in a row, and whether it failed."""
    failed = row["loops"].get(loop, {}).get("error") and "failed"
    return f"{short(figure(row, loop))} {failed or ''}".strip()


# -- tables -------------------------------------------------------------------


def by_loop(
    rows: list[dict],
    head: Sequence[str],
    loops: Iterable[str],
    cell: Callable[[dict, str], str],
) -> list[list[str]]:
    """Return a table of what `cell` says of each loop: its head, and the rows
    of which it says something; [] where there is none.

    The head has a name for the titles of the rows, and may have one for their
    units.
    """
    loops = [loop for loop in LOOPS if loop in loops]
    lines = [[*head, *loops]]
    for row in rows:
        cells = [cell(row, loop) for loop in loops]
        if any(cells):
            lines.append([row["title"], row["unit"]][: len(head)] + cells)
    return lines if len(lines) > 1 else []


def table(
    lines: Sequence[Sequence[str]], is_aligned: bool = False
) -> list[str]:
    """Return the lines of a table, its head first and that column left."""
    if not lines:
        return []
    rule = ["---", *["---:"] * (len(lines[0]) - 1)]
    if is_aligned:
        first, *rest = (
            max(map(len, column)) for column in zip(*lines, strict=True)
        )
        lines = [
            [line[0].ljust(first), *map(str.rjust, line[1:], rest)]
            for line in lines
        ]
        rule = ["-" * first, *("-" * (width - 1) + ":" for width in rest)]
    cells = [lines[0], rule, *lines[1:]]
    return [f"| {' | '.join(each)} |" for each in cells]


def write(data: dict, out: TextIO) -> None:
    """Write all tables, and what failed, to `out`."""
    rows = data["rows"]
    loops = {loop for row in rows for loop in row["loops"]}
    shown = [by_loop(rows, ["row", "unit"], loops, cell)]
    for base in BASES:

        def over(row: dict, loop: str, base: str = base) -> str:
            return times(ratio(row, loop, base))

        head = [f"times as good as {base}"]
        shown.append(by_loop(rows, head, loops - {base}, over))
    texts = ["\n".join(table(lines, True)) for lines in shown if lines]
    out.write("\n".join(["\n\n".join(texts), *notes(rows), ""]))
    failed = {
        (row["case"], loop): found["error"]
        for row in rows
        for loop, found in row["loops"].items()
        if found["error"] is not None
    }
    for (name, loop), error in failed.items():
        out.write(f"\n{name} on {loop} failed: {error}")
    if data["cut"]:
        out.write(f"\nNot complete: {data['cut']}.")
        if data["cut"].startswith("time was up"):
            out.write(" This is normal on a busy machine.")
    out.write("\n")
