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
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from typing import Any

from diff_machine import HANG, Machine, named, plain

import fastloop

#: How often a void or a differing run is made again.
TRIES = 6
#: Seconds spent on making a failing program smaller.
REDUCE = 30.0
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
            if rule.strand.match(strand) and rule.loop in ("", kind)
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
            whole = strand in ("warnings", "unraisable")
            seen[strand] = sorted(kept) if whole else kept
    return seen


@dataclass
class Tally:
    """How the programs of a run fared."""

    same: int = 0
    again: int = 0
    void: int = 0


TALLY = Tally()


def factory_of(kind: str) -> Callable[[], asyncio.AbstractEventLoop]:
    """Return what makes a loop of a kind."""
    if kind == "asyncio":
        return asyncio.SelectorEventLoop
    return fastloop.new_event_loop


def machine_for(loop: Any, world: str) -> Machine:
    if world == "loop":
        return Machine(loop, world)
    from diff_network import Network

    return Network(loop, world)


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
            if type(exc).__name__ == "Overdue":
                raise
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


def run_once(kind: str, program: Program) -> tuple[Trace, bool]:
    """Run a program on one loop; return its trace and whether it is void."""
    loop = factory_of(kind)()
    machine = machine_for(loop, program.world)
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
            trace, late = machine.trace, machine.late
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


def run_valid(kind: str, program: Program) -> Trace | None:
    """Run a program until a run is not void; None if none was."""
    for _ in range(TRIES):
        # What a program sets in its context is not to outlive it.
        trace, late = contextvars.Context().run(run_once, kind, program)
        if not late:
            return trace
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


def compare(program: Program, tries: int = TRIES) -> str:
    """Return the difference between the loops; empty if there is none.

    If two runs differ, both are made again, and the difference counts only
    if no trace of fastloop's was ever one of asyncio's.
    """
    theirs: list[Trace] = []
    ours: list[Trace] = []
    for attempt in range(tries):
        for kind, traces in (("asyncio", theirs), ("fastloop", ours)):
            trace = run_valid(kind, program)
            if trace is None:
                TALLY.void += 1
                return ""
            traces.append(trace)
        if any(trace in theirs for trace in ours):
            TALLY.same += 1
            TALLY.again += attempt > 0
            return ""
    return difference(theirs[-1], ours[-1])


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
        if compare(less, 2):
            return reduce(less, until)
    return program


def check(program: Program) -> None:
    """Fail, printing a small program, if the loops differ."""
    if not compare(program):
        return
    tally = replace(TALLY)
    least = reduce(program, time.monotonic() + REDUCE)
    found = compare(least) or "(not in the last run)"
    TALLY.same, TALLY.again, TALLY.void = tally.same, tally.again, tally.void
    raise AssertionError(f"{found}\n\nthe program:\n\n{least!r}")
