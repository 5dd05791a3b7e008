"""Programs that are kept: for branches of C no other reaches, or a defect.

``prog_corpus.py --programs N`` builds a copy of the tree that counts its
edges, draws programs, half of them changed ones of the corpus, adds those that
reach something new, and drops those that reach nothing of their own any more,
but for those that stay ``always``.  The line above a program says what it
has; that of a new one names functions, until somebody says more.
"""

from __future__ import annotations

import argparse
import ast
import copy
import functools
import os
import random
import subprocess
import sys
from pathlib import Path
from typing import Any

HERE = Path(__file__).resolve().parent
TOP = HERE.parents[1]
FILE = HERE / "corpus.txt"
FIELDS = ("links", "steps", "tapes", "env", "debug")
#: A program is kept for an edge only if it reaches it in so many runs.
RUNS = 3
#: Translates a counter to the digit of a bit.
ZERO_OR_ONE = b"0" + b"1" * 255
#: How the reason of a program begins that stays whatever it reaches.
ALWAYS = "# always: "

if __name__ == "__main__":
    sys.path[:0] = map(str, (HERE, HERE.parent, TOP / "tests/mutants"))
    import edges
    import mut_plugin

    if "--child" not in sys.argv:
        tree, *_places = edges.build()
        # Another process: this one may have imported the usual build.
        words = [str(Path(__file__).resolve()), "--child", *sys.argv[1:]]
        env = {**os.environ, "PYTHONPATH": str(tree)}
        sys.exit(subprocess.call([sys.executable, *words], env=env))

import prog_gen  # noqa: E402
import prog_judge  # noqa: E402
import prog_pool  # noqa: E402
import prog_taskgen  # noqa: E402
from prog_tape import Program  # noqa: E402
from prog_world import run_program  # noqa: E402

import fastloop  # noqa: E402


def reasons() -> dict[str, str]:
    """Return each line of the corpus, and the line above with its reason."""
    lines = FILE.read_text().splitlines()
    return dict(zip(lines[1::2], lines[::2], strict=True))


@functools.cache
def kept() -> list[Program]:
    """Return the corpus."""
    return list(map(program_of, reasons()))


def program_of(line: str) -> Program:
    return Program(*ast.literal_eval(line))


# -- changed programs -------------------------------------------------------


def at_random(rng: random.Random, program: Program) -> list[Any]:
    """Return one of the program's lists: its steps, operations or tapes."""
    lists = [*prog_judge.inner_lists([program.steps, program.tapes])][1:]
    return rng.choice([items for items in lists if items] or [program.steps])


def insert(rng: random.Random, program: Program) -> None:
    """Draw some operations more, for the links that are there."""
    seed = rng.getrandbits(32)
    if program.links:
        chance = prog_gen.Chance(seed)
        chance.links = program.links
        chance.names = rng.choices(list(prog_gen.WEIGHTS), k=3)
        ops = chance.ops(None, 2)
    else:
        ops = [prog_taskgen.TaskChance(seed).operation()]
    if not program.steps or rng.random() < 0.3:
        at = rng.randrange(len(program.steps) + 1)
        program.steps.insert(at, (rng.choice([-1, 0, 1, 2]), ops))
        return
    step = rng.choice(program.steps)[1]
    at = rng.randrange(len(step) + 1)
    step[at:at] = ops


def splice(rng: random.Random, program: Program) -> None:
    """Take steps of another program of the corpus."""
    others = [one for one in kept() if bool(one.links) == bool(program.links)]
    steps = copy.deepcopy(rng.choice(others).steps)
    some = rng.choices(steps, k=rng.randint(1, 2)) if steps else []
    at = rng.randrange(len(program.steps) + 1)
    program.steps[at:at] = some


def move(rng: random.Random, program: Program) -> None:
    """Drop, double or move one operation or step."""
    items = at_random(rng, program)
    if not items:
        return
    at = rng.randrange(len(items))
    how = rng.randrange(3)
    if how == 1:
        items.insert(at, copy.deepcopy(items[at]))
    item = items.pop(at)
    if how == 2:
        items.insert(rng.randrange(len(items) + 1), item)


def resize(rng: random.Random, program: Program) -> None:
    """Give operations other sizes, and steps other iterations."""
    items = at_random(rng, program)
    for at, item in enumerate(items):
        if not isinstance(item, tuple) or rng.random() < 0.5:
            continue
        items[at] = tuple(
            rng.choice(prog_gen.BIG)
            if type(part) is int and part >= 100
            else rng.choice([-1, 0, 1, 2])
            if isinstance(item[0], int) and not index
            else part
            for index, part in enumerate(item)
        )


def relink(rng: random.Random, program: Program) -> None:
    """Have a link of the same kind, over another net."""
    for at, (_net, _side, kind, conf) in enumerate(program.links):
        chance = prog_gen.Chance(rng.getrandbits(32))
        chance.names = ["hook"] if "tls" in conf else ["write"]
        net, side, drawn, other = chance.link()
        if drawn == kind:
            react = {"react": conf["react"]} if "react" in conf else {}
            program.links[at] = (net, side, kind, {**other, **react})


CHANGES = [insert, insert, splice, move, move, resize, relink]


def changed(seed: int) -> Program:
    """Return a program of the corpus, with some changes."""
    rng = random.Random(seed)
    original = rng.choice(kept())
    program = copy.deepcopy(original)
    while program == original:  # a change may find nothing to change
        for _ in range(rng.randint(1, 3)):
            rng.choice(CHANGES)(rng, program)
    return program


def mixed(seed: int) -> Program:
    """Return one at random, or, of two, one of the corpus with changes."""
    half = seed % 2 and kept()
    return changed(seed) if half else prog_gen.draw(seed)


# -- the corpus grows -------------------------------------------------------


def reached(program: Program) -> int:
    """Return, as bits, the edges that each of some runs reaches."""
    counters = mut_plugin.edges().counters
    bits = -1
    for _ in range(RUNS):
        counters()
        run_program(fastloop.new_event_loop, program)
        bits &= int(counters().translate(ZERO_OR_ONE)[::-1], 2)
    return bits


def grow(programs: dict[str, str], workers: int) -> dict[str, str]:
    """Return those of the programs that reach what none before did."""
    seen, better, lines = 0, {}, list(programs)

    def run(which: int) -> tuple[str, str]:
        # `seen` is as it was when this worker was forked.
        return "edges", f"{reached(program_of(lines[which])) & ~seen:x}"

    for result in prog_pool.run_all(iter(range(len(lines))), run, workers):
        line = lines[result.seed]
        why = programs[line]
        if result.kind != "edges":
            print(f"program {result.seed}: {result.kind} {result.text[:500]}")
            continue
        bits = int(result.text, 16) & ~seen
        seen |= bits
        if bits or why.startswith(ALWAYS):
            better[line] = why or f"# reaches {functions(bits)}"[:79]
    print(f"{len(better)} of {len(lines)} reach {seen.bit_count()} edges")
    return better


def functions(bits: int) -> str:
    """Return the names of the functions that edges are in."""
    from fastloop import _core

    library = Path(_core.__file__)
    named, _ = edges.places(library, mut_plugin.edges().places())
    digits = zip(named, reversed(f"{bits:b}"), strict=False)
    names = {edge.split()[1] for edge, digit in digits if digit == "1"}
    return ", ".join(sorted(names))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--child", action="store_true", help=argparse.SUPPRESS)
    parser.add_argument("--programs", type=int, default=0)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--workers", type=int, default=os.cpu_count() or 1)
    args = parser.parse_args()
    new = [mixed(args.seed + number) for number in range(args.programs)]
    lists = ([getattr(program, name) for name in FIELDS] for program in new)
    programs = reasons() | dict.fromkeys(map(repr, lists), "")
    for _ in range(2):
        # Short ones first: what they reach, the long ones need not.
        better = grow(programs, args.workers)
        programs = {line: better[line] for line in sorted(better, key=len)}
    lines = (f"{reason}\n{line}\n" for line, reason in programs.items())
    FILE.write_text("".join(lines))


if __name__ == "__main__":
    main()
