"""Runs a program on both loops and compares what they wrote down."""

from __future__ import annotations

import asyncio
import contextlib
import contextvars
import copy
import gc
import pathlib
import re
import sys
import time
import tomllib
import warnings
from asyncio import selector_events
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from typing import Any

import pytest
from diff_lazy import PATTERNS, lazy_loop
from diff_machine import HANG, Machine, named, plain

import fastloop

#: How often a void run is made again, each time with more patience.
TRIES = 7
#: How often a program is run on each loop if the first traces differ,
ROUNDS = 6
#: and, if they differ again and again, once more before they are believed.
DOUBTS = 12
#: How many times longer than usual a program may take, at most.
PATIENCE = 16
#: Seconds spent on making a failing program smaller.
REDUCE = 30.0
#: Strands of what the collector finds, in whatever order.
UNORDERED = ("warnings", "unraisable", "collected")
Trace = dict[str, list[str]]

HERE = pathlib.Path(__file__).parent


@dataclass
class Program:
    """A generated program; its repr can be pasted into a test."""

    world: str
    steps: list[Any]
    end: str = "clean"
    debug: bool = False

    def __repr__(self) -> str:
        steps = ",\n        ".join(map(repr, self.steps))
        return (
            f"Program(\n    world={self.world!r},\n    steps=[\n"
            f"        {steps},\n    ],\n    end={self.end!r},\n"
            f"    debug={self.debug!r},\n)"
        )


@dataclass
class Rule:
    """An allowed difference: lines that are not compared."""

    name: str
    reason: str
    strand: re.Pattern[str]
    line: re.Pattern[str]
    instead: str | None
    loop: str


def rules() -> list[Rule]:
    """Return the allowed differences that hold for this interpreter."""
    version = ".".join(map(str, sys.version_info[:2]))
    with open(HERE / "allowed.toml", "rb") as file:
        rows = tomllib.load(file).get("allowed", [])
    return [
        Rule(
            row["name"],
            row["reason"],
            re.compile(row.get("strand", "")),
            re.compile(row["line"]),
            row.get("instead"),
            row.get("loop", ""),
        )
        for row in rows
        if re.match(row.get("python", ""), version)
    ]


RULES = rules()


def normal(trace: Trace, kind: str) -> Trace:
    """Return a loop's trace without what may differ."""
    seen: Trace = {}
    for strand, lines in trace.items():
        mine = [
            rule
            for rule in RULES
            if rule.strand.match(strand)
            and rule.loop in ("", kind.split(" ")[0])
        ]
        kept = []
        for line in lines:
            text: str | None = line
            for rule in mine:
                if text is not None and rule.line.search(text):
                    text = (
                        None
                        if rule.instead is None
                        else rule.line.sub(rule.instead, text)
                    )
            if text is not None:
                kept.append(text)
        if kept:
            seen[strand] = sorted(kept) if strand in UNORDERED else kept
    return seen


@dataclass
class Tally:
    """How the programs of a run fared."""

    same: int = 0  # in the first run of each loop
    again: int = 0  # each of fastloop's traces was asyncio's in some run
    turns: int = 0  # or asyncio's with events that were seen some turns later
    rare: int = 0  # some were not, too few to be a difference
    void: int = 0  # no run was in time
    different: int = 0


TALLY = Tally()
#: What differed now and then: the difference and the program.
RARE: list[str] = []


class Heedful(asyncio.SelectorEventLoop):
    """Keeps a pause in connection_made; see allowed.toml."""

    def _add_reader(self, fd: Any, callback: Any, *args: Any) -> Any:
        if getattr(getattr(callback, "__self__", None), "_paused", False):
            return None
        return super()._add_reader(fd, callback, *args)


def oracle() -> type[asyncio.SelectorEventLoop]:
    """Return asyncio's loop, as its newest versions have it."""
    begins = selector_events._SelectorTransport._add_reader
    forgetful = "is_reading" not in begins.__code__.co_names
    return Heedful if forgetful else asyncio.SelectorEventLoop


def factory_of(kind: str) -> Callable[[], asyncio.AbstractEventLoop]:
    """Return what makes a loop of a kind."""
    if kind == "asyncio":
        return oracle()
    if kind.startswith("asyncio"):
        _, which, turns = kind.split(" ")
        return partial(lazy_loop, oracle(), which, int(turns))
    return fastloop.new_event_loop


def machine_for(loop: Any, world: str, patience: int) -> Machine:
    if world == "loop":
        return Machine(loop, world, patience)
    from diff_network import Network

    return Network(loop, world, patience)


def run_steps(machine: Machine, coro: Any) -> None:
    """Run a coroutine to its end, whatever leaves the loop meanwhile."""
    guard = machine.loop.call_later(HANG, hung, machine)
    task = machine.loop.create_task(coro)
    for _ in range(60):
        if task.done():
            break
        try:
            machine.loop.run_until_complete(task)
        except Hung:
            break
        except BaseException as exc:
            if isinstance(exc, pytest.fail.Exception):
                raise  # the time limit of the test
            machine.log(f"left the loop by {named(exc)}")
    else:
        machine.log("does not end")
    guard.cancel()
    if task.done() and not task.cancelled() and task.exception():
        machine.log(f"driver failed: {named(task.exception())}", "driver")


def hung(machine: Machine) -> None:
    """Leave the loop for good: something never came to rest."""
    machine.log("HUNG", "driver")
    raise Hung


class Hung(SystemExit):
    """A program took HANG seconds."""


def close(machine: Machine, program: Program) -> None:
    if program.end == "clean":
        run_steps(machine, machine.finish())
    machine.loop.close()
    machine.last_look()
    machine.use_closed()
    for thread in machine.threads:
        thread.join(HANG)


def said(caught: list[warnings.WarningMessage]) -> list[str]:
    """Collect what a program left, and return the warnings of it all."""
    texts = []
    # All of it is young, as nothing was collected since; a full collection
    # goes through all that Hypothesis keeps.
    generation = 1 if sys.version_info < (3, 14) else 2
    for _ in range(3):
        gc.collect(generation)
        if not caught:
            break
        texts += [plain(f"{w.category.__name__} {w.message}") for w in caught]
        caught.clear()  # a warning may keep what others hang on
        generation = 2
    return texts


def forget() -> None:
    """Collect what programs left behind all the same."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        gc.collect()


def run_once(
    kind: str, program: Program, patience: int = 1
) -> tuple[Trace, bool]:
    """Run a program on one loop; return its trace and whether it is void."""
    loop = factory_of(kind)()
    machine = machine_for(loop, program.world, patience)
    loop.set_exception_handler(machine.on_report)
    loop.set_debug(program.debug)
    loop.slow_callback_duration = HANG
    unraisable: list[str] = []
    hook = sys.unraisablehook

    def note(args: Any) -> None:
        unraisable.append(plain(f"{args.err_msg} {named(args.exc_value)}"))

    sys.unraisablehook = note
    enabled = gc.isenabled()
    gc.disable()
    try:
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            steps = program.steps
            if program.end == "abrupt":
                steps = steps[:-1]
            run_steps(machine, machine.drive(steps))
            if program.end == "abrupt":
                for op in program.steps[-1]:
                    with contextlib.suppress(BaseException):
                        machine.do(op)
            close(machine, program)
            trace, late = machine.trace, machine.clock.late
            machine.release()
            del loop, machine
            texts = said(caught)
    finally:
        sys.unraisablehook = hook
        if enabled:
            gc.enable()
    if texts:
        trace["warnings"] = texts
    if unraisable:
        trace["unraisable"] = unraisable
    return normal(trace, kind), late


def run_valid(kind: str, program: Program, patience: int) -> Trace | None:
    """Run a program until a run is not void; None if none was."""
    for _ in range(TRIES):
        # What a program sets in its context is not to outlive it.
        trace, late = contextvars.Context().run(
            run_once, kind, program, patience
        )
        if not late:
            return trace
        patience = min(2 * patience, PATIENCE)
    return None


def difference(a: Trace, b: Trace) -> str:
    """Return the strands that differ, asyncio's lines beside fastloop's."""
    text = []
    for strand in sorted(a.keys() | b.keys()):
        one, two = a.get(strand, []), b.get(strand, [])
        if one == two:
            continue
        text.append(f"--- {strand}: asyncio | fastloop")
        count = max(len(one), len(two))
        for at in range(count):
            left = one[at] if at < len(one) else "-"
            right = two[at] if at < len(two) else "-"
            mark = " " if left == right else "!"
            text.append(f"{mark} {left}" + (f"   |   {right}" * (mark == "!")))
    return "\n".join(text)


def most_common(traces: list[Trace]) -> Trace:
    """Return the trace that is there most often."""
    return max(traces, key=traces.count)


def judge(program: Program, rounds: int) -> tuple[str, str]:
    """Return which count of ``Tally`` a program belongs to, and why.

    Traces depend on the machine's load to a degree, so one that differs
    proves nothing: both loops run the program again, and it is different if
    half of fastloop's traces or more are none of those asyncio ever had.
    """
    theirs: list[Trace] = []
    ours: list[Trace] = []
    patience = 1
    for attempt in range(rounds):
        their = run_valid("asyncio", program, patience)
        our = run_valid("fastloop", program, patience)
        if their is not None and our is not None:
            theirs.append(their)
            ours.append(our)
        if attempt == 0 and ours == theirs:
            return ("same" if ours else "void"), ""
        patience = min(2 * patience, PATIENCE)
    strange = [trace for trace in ours if trace not in theirs]
    if not strange:
        return "again", ""
    text = difference(most_common(theirs), most_common(strange))
    if 2 * len(strange) >= len(ours):
        late = [
            run_valid(f"asyncio {which} {turns}", program, 1)
            for which, turns in PATTERNS
        ]
        if not any(trace not in late for trace in strange):
            return "turns", ""
    if 2 * len(strange) < len(ours):
        return "rare", f"{len(strange)} of {len(ours)} runs:\n{text}"
    return "different", text


def compare(program: Program, rounds: int = ROUNDS) -> str:
    """Return the difference between the loops; empty if there is none."""
    verdict, text = judge(program, rounds)
    return text if verdict == "different" else ""


def inner_lists(value: Any) -> Iterator[list[Any]]:
    """Return all lists inside of a program's steps, outer ones first."""
    if isinstance(value, list):
        yield value
    if isinstance(value, (list, tuple)):
        for one in list(value):
            yield from inner_lists(one)


def smaller(program: Program) -> Iterator[Program]:
    """Return the program without one of its items, for each of them."""
    for at, items in enumerate(inner_lists(program.steps)):
        for index in reversed(range(len(items))):
            less = copy.deepcopy(program)
            del list(inner_lists(less.steps))[at][index]
            if less.steps:
                yield less


def reduce(program: Program, until: float) -> Program:
    """Take away what a difference does not need, until time runs out."""
    for less in smaller(program):
        if time.monotonic() > until:
            break
        if compare(less, 4):
            return reduce(less, until)
    return program


class Differs(AssertionError):
    """The loops do not do the same."""


def check(program: Program) -> None:
    """Count a program; fail, printing a small one, if the loops differ.

    What differed, but not again and again, is counted and kept in ``RARE``.
    """
    verdict, text = judge(program, ROUNDS)
    if verdict == "different":
        verdict = judge(program, DOUBTS)[0]
        if verdict not in ("different", "turns"):
            verdict = "rare"
    setattr(TALLY, verdict, getattr(TALLY, verdict) + 1)
    if verdict == "rare":
        RARE.append(f"{text}\n\nthe program:\n\n{program!r}")
    if verdict == "different":
        least = reduce(program, time.monotonic() + REDUCE)
        found = compare(least, DOUBTS)
        if not found:
            least, found = program, text
        raise Differs(f"{found}\n\nthe program:\n\n{least!r}")
