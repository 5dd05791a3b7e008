"""The two judges, and the shrinker that asks them again and again."""

from __future__ import annotations

import asyncio
import copy
import functools
import pathlib
import re
import time
import tomllib
from collections.abc import Callable, Iterator
from typing import Any

from builds import SANITIZED
from prog_lazy import PATTERNS, lazy_loop
from prog_reuse import NEXT_FILE
from prog_tape import Program
from prog_world import run_program

import fastloop

Trace = dict[str, list[str]]
Verdict = tuple[str, str]  # its kind, what is wrong
with open(pathlib.Path(__file__).with_name("allowed.toml"), "rb") as file:
    ROWS = tomllib.load(file)
NOT_COMPARED = ROWS["not_compared"]
ASYNCIO_ALONE = [row["line"] for row in ROWS["asyncio_alone"]]
#: How often both loops run again a program whose traces differ; the same if a
#: thread plays end B, or if one loop's own traces vary.
ROUNDS, DOUBTS = 4, 25
#: What asyncio does wrong and fastloop's own TLS does not.
BEYOND = re.compile("before start_tls")
#: What asyncio does wrong and fastloop does not.
FASTLOOP_ALONE = re.compile(f"{BEYOND.pattern}|{NEXT_FILE}")
#: A program, of the corpus perhaps, that can no longer be run.
UNFIT = re.compile("the driver failed: (Key|Type|Attribute|Index)Error")


def normal(trace: Trace) -> Trace:
    """Return a trace whose reports are in no order."""
    return {
        strand: sorted(lines) if strand == "reports" else lines
        for strand, lines in trace.items()
    }


def alike(mine: list[str], theirs: list[str]) -> bool:
    """Whether strands are the same, but for what fastloop may lack."""
    return mine == [
        line
        for line in theirs
        if line in mine
        or not any(re.search(row, line) for row in ASYNCIO_ALONE)
    ]


def agree(ours: list[Trace], theirs: list[Trace]) -> bool:
    """Whether each strand was the same in some run of each loop.

    Each by itself: what of one descriptor is a race says nothing of another.
    One that asyncio runs in two ways is a race already, and no model.
    The marks are no answers of a loop's, but for NOT_COMPARED.
    """
    if any(is_void(trace, "fastloop") for trace in ours):
        return True
    if any(is_void(trace, "asyncio") for trace in theirs):
        return True
    return all(
        len({tuple(their.get(strand, [])) for their in theirs}) > 1
        or any(
            alike(our.get(strand, []), their.get(strand, []))
            for our in ours
            for their in theirs
        )
        for strand in set().union(*ours, *theirs) - {"marks"}
    )


def is_void(trace: Trace, loop: str) -> bool:
    """Whether a loop's run was one whose trace says nothing."""
    text = repr(trace)
    return "wild" in trace or any(
        re.search(row[whose], text)
        for row in NOT_COMPARED
        for whose in ("either", loop)
        if whose in row
    )


def on_asyncio(program: Program) -> tuple[list[str], Trace]:
    problems, trace = run_program(asyncio.SelectorEventLoop, program)
    if problems:
        trace["wild"] = []  # what breaks an invariant is no model
    return problems, normal(trace)


def on_fastloop(program: Program) -> tuple[list[str], Trace]:
    problems, trace = run_program(fastloop.new_event_loop, program)
    if program.env.get("FASTLOOP_DISABLE") == "native_tls":
        # asyncio's SSLProtocol does the TLS, and has this defect.
        problems = [text for text in problems if not BEYOND.search(text)]
    return problems, normal(trace)


def kind_of(text: str) -> str:
    """Return what two findings of one kind have in common."""
    return re.sub(r"\d+|'.*'|b\".*\"", "N", text)


def judge(program: Program, traces: bool = not SANITIZED) -> Verdict:
    """Return what is wrong, and which judge says so; both empty if none."""
    problems, ours = on_fastloop(program)
    if not problems and not traces:  # other builds compare them
        return "", ""
    wrong, theirs = on_asyncio(program)
    if problems:
        kinds = set(map(kind_of, problems))
        for _ in range(2):
            if not kinds:
                break
            again, _trace = on_fastloop(program)
            kinds &= set(map(kind_of, again))
        shared = set(map(kind_of, wrong))
        if kinds - shared:
            # What is chance on fastloop may be so on asyncio.
            for _ in range(3):
                shared |= set(map(kind_of, on_asyncio(program)[0]))
        for text in problems:
            if kind_of(text) in kinds and kind_of(text) not in shared:
                return "invariant", text
            if FASTLOOP_ALONE.search(text) or UNFIT.search(text):
                return "invariant", text
        for text in problems:
            if kind_of(text) in kinds:
                return "both", text
        return "once", problems[0]
    return compare(program, ours, theirs)


def compare(program: Program, ours: Trace, theirs: Trace) -> Verdict:
    """Say whether traces differ again and again."""
    all_ours, all_theirs = [ours], [theirs]
    while not agree(all_ours, all_theirs):
        may_vary = any(program.tapes) or any(
            run != runs[0] for runs in (all_ours, all_theirs) for run in runs
        )
        if len(all_ours) > (DOUBTS if may_vary else ROUNDS):
            break
        all_theirs.append(on_asyncio(program)[1])
        all_ours.append(on_fastloop(program)[1])
    for which, iterations in PATTERNS:
        if agree(all_ours, all_theirs):
            return "", ""
        # fastloop may look at its descriptors some iterations later.
        make = functools.partial(lazy_loop, which, iterations)
        all_theirs.append(normal(run_program(make, program)[1]))
    if agree(all_ours, all_theirs):
        return "", ""
    return "trace", difference(theirs, ours)


def difference(a: Trace, b: Trace) -> str:
    """Return the strands that differ, asyncio's lines beside fastloop's."""
    text = []
    for strand in sorted((a.keys() | b.keys()) - {"marks"}):
        one, two = a.get(strand, []), b.get(strand, [])
        if one == two:
            continue
        at = 0
        while at < min(len(one), len(two)) and one[at] == two[at]:
            at += 1
        text.append(
            f"{strand}: asyncio {one[at : at + 4]}, "
            f"fastloop {two[at : at + 4]}"
        )
    return "; ".join(text)


# -- the shrinker -----------------------------------------------------------


def inner_lists(value: Any) -> Iterator[list[Any]]:
    """Return all lists inside of a value, outer ones first."""
    if isinstance(value, list):
        yield value
    if isinstance(value, dict):
        value = list(value.values())
    if isinstance(value, (list, tuple)):
        for one in list(value):
            yield from inner_lists(one)


def parts(program: Program) -> list[Any]:
    return [program.steps, program.tapes, program.links]


def smaller(program: Program) -> Iterator[Program]:
    """Return the program without one of its parts, for each of them."""
    for at, items in enumerate(inner_lists(parts(program))):
        if at == 0:
            continue
        for index in reversed(range(len(items))):
            less = copy.deepcopy(program)
            del list(inner_lists(parts(less)))[at][index]
            if less.links or not program.links:
                yield less
    if program.env or program.debug:
        yield Program(program.links, program.steps, program.tapes)
    for index, link in enumerate(program.links):
        for name in link[3]:
            less = copy.deepcopy(program)
            del less.links[index][3][name]
            yield less


def shrink(
    program: Program, test: Callable[[Program], bool], seconds: float
) -> Program:
    """Return the least program found in a time that still fails a test."""
    until = time.monotonic() + seconds
    found = True
    while found:
        found = False
        for less in smaller(program):
            if time.monotonic() > until:
                return program
            if test(less):
                program, found = less, True
                break
    return program
