"""The figures of a run as rows of JSON, what they say, and tables of them.

README.md has the method: of quotients of figures, and of the ratios of samples
of the same time, which decide a place.
"""

from __future__ import annotations

import statistics
from collections.abc import Callable, Container, Iterable
from dataclasses import asdict
from functools import partial

from fastloop.cli.compare import Comparison, mean, of_ratios, times_as_good
from fastloop.cli.compare import figure as in_digits
from harness.case import Case
from harness.loops import LOOPS

#: What a reader has to know of rows, by their keys.  One that names a loop is
#: for runs that race it.
NOTES = {
    "threadsafe_wake": "blazio 0.1.0 spins for some 4 ms before it sleeps, so "
    "it is awake here",
    "getaddrinfo": "no connection makes this call for a literal",
    "connect": "rloop 0.5.0 left the sockets of 57 to 241 of 300 open",
    "pipe": "rsloop reads in a second thread, whose CPU time counts too",
    "fastapi_sqlalchemy": "64 clients share a pool of 5 connections; 10 more "
    "come and go, one in some 30 answers",
    "asyncpg_32": "a loop that needs less CPU sleeps more, and both sides pay",
}
#: What a table says of a row, by the names of its columns.
Columns = dict[str, Callable[[dict], str]]


# -- one row ------------------------------------------------------------------


def new_rows(case: Case) -> list[dict]:
    group = "threads" if case.free_threaded else case.group
    of_all = {"case": case.name, "group": group}
    return [
        of_all
        | asdict(row)
        | {"row": row.key, "better": row.better, "loops": {}}
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


def of(row: dict, loop: str, key: str) -> object:
    """Return what a row has of a loop: its figure, repetitions or error."""
    return row["loops"].get(loop, {}).get(key)


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
    own, other = (of(row, name, "repetitions") or () for name in (loop, base))
    each = zip(own, other, strict=False)
    return [paired(mine, theirs, row["better"]) for mine, theirs in each]


def ratio(row: dict, loop: str, base: str) -> float | None:
    """Return how many times as good as `base` the `loop` is, as a reader of
    both figures sees it."""
    own, other = (
        float(short(of(row, name, "figure")).replace(",", "") or 0)
        for name in (loop, base)
    )
    if not own or not other:
        return None
    return times_as_good(own, other, row["better"])


def repetitions(row: dict, loop: str) -> list[float]:
    """Return the figures of `loop` in a row, in the order of their time."""
    return [one["figure"] for one in of(row, loop, "repetitions") or ()]


def against(row: dict, peer: str) -> Comparison | None:
    """Compare fastloop with `peer`, repetition by repetition.

    None where there are fewer than two repetitions of both, and where the
    greatest of all is shown.
    """
    if row["judge"] == "most":
        return None
    return of_ratios(ratios(row, "fastloop", peer))


def is_measured(row: dict, loop: str) -> bool:
    has_figure = of(row, loop, "figure") is not None
    return has_figure and not of(row, loop, "error")


def best(row: dict, loops: Container[str]) -> str:
    """Return the one of `loops` with the best figure in a row, "" without.

    One that failed is not: few figures may have been lucky.
    """
    found = [one for one in LOOPS if one in loops and is_measured(row, one)]
    best_of = max if row["better"] == "more" else min
    return best_of(found, key=partial(of, row, key="figure"), default="")


def best_peer(row: dict) -> str:
    return best(row, {*LOOPS} - {"fastloop"})


# -- cells --------------------------------------------------------------------


def short(value: float | None) -> str:
    """Return `value` with three digits that matter."""
    return "" if value is None else in_digits(value)


def times(value: float | None) -> str:
    """Return a ratio; two repetitions may leave it open to thousands."""
    return f"{value:.2f}" if value and value < 100 else short(value)


def cell(row: dict, loop: str) -> str:
    """Return a loop's figure in a row, and whether it failed."""
    failed = of(row, loop, "error") and "failed"
    return f"{short(of(row, loop, 'figure'))} {failed or ''}".strip()


def over(base: str, loop: str = "fastloop") -> Callable[[dict], str]:
    """Return what says how many times as good as `base` the `loop` is."""
    return lambda row: times(ratio(row, loop, base))


def notes(rows: list[dict]) -> list[str]:
    """Return the notes of rows, in lines with an empty one before them."""
    lines = [
        f"- {row['title']}: {note}"
        for row in rows
        if (note := NOTES.get(row["row"]))
        and {*LOOPS}.intersection(note.split()) <= {*row["loops"]}
    ]
    return ["", *lines] if lines else []


# -- tables -------------------------------------------------------------------


def by_loop(loops: Iterable[str], cell: Callable[[dict, str], str]) -> Columns:
    """Return the columns of what `cell` says of each loop."""
    return {loop: partial(cell, loop=loop) for loop in LOOPS if loop in loops}


def filled(rows: list[dict], head: Columns, rest: Columns) -> list[list[str]]:
    """Return a table with its names first: the rows of which the rest says
    something; [] where there is none."""
    columns = head | rest
    lines = [
        [say(row) for say in columns.values()]
        for row in rows
        if any(say(row) for say in rest.values())
    ]
    return [[*columns], *lines] if lines else []


def table(rows: list[dict], head: Columns, rest: Columns) -> list[str]:
    """Return the lines of such a table in Markdown; that column is left."""
    names, *lines = filled(rows, head, rest) or [[]]
    rule = ["---", *["---:"] * (len(names) - 1)]
    cells = [names, rule, *lines] if names else []
    return [f"| {' | '.join(each)} |" for each in cells]


def title(name: str = "row") -> Columns:
    return {name: lambda row: row["title"]}


def unit(row: dict) -> str:
    return row["unit"]
