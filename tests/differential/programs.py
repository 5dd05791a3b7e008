"""Runs generated programs; ``--help`` tells how many, and which."""

from __future__ import annotations

import argparse
import datetime
import os
import pathlib
import sys
import time
from collections import Counter
from collections.abc import Callable

HERE = pathlib.Path(__file__).resolve().parent
sys.path[:0] = [str(HERE), str(HERE.parent), str(HERE.parents[1])]

import prog_corpus  # noqa: E402
import prog_gen  # noqa: E402
import prog_judge  # noqa: E402
import prog_pool  # noqa: E402
import worst  # noqa: E402
from prog_tape import Program  # noqa: E402

Judge = Callable[[Program], prog_judge.Verdict]
#: Findings that fail the run; the others are counted.
FAILING = ("crash", "invariant", "trace")
#: Where programs come from: each makes the program of a number.
SOURCES = {
    "chance": prog_gen.draw,
    "corpus": lambda number: prog_corpus.kept()[number],
    "changed": prog_corpus.changed,
    "mixed": prog_corpus.mixed,
}


def judge_at_worst(program: Program) -> prog_judge.Verdict:
    if "'fork'" in repr(program):
        return "", ""  # a child that ends at once may leave bytes behind
    # Debug mode takes a stack for each callback, and gives the GIL to the
    # threads of end B for each file in it: bytes one by one take minutes.
    program.debug = False
    return prog_judge.judge(program, traces=False)


def verdict(program: Program, judge: Judge) -> prog_pool.Result:
    """Judge a program in a process of its own."""
    return prog_pool.run_one(lambda _: judge(program))


def signature(result: prog_pool.Result) -> str:
    """Return what findings of one kind have in common."""
    if result.kind == "crash":
        return f"crash {result.text.partition(chr(10))[0]}"
    return f"{result.kind} {prog_judge.kind_of(result.text)}"


def same(one: prog_pool.Result, other: prog_pool.Result) -> bool:
    return one.kind == other.kind and (
        signature(one) == signature(other) or one.kind == "trace"
    )


def shrunk(
    program: Program, judge: Judge, found: prog_pool.Result, seconds: float
) -> Program:
    """Return a small program that has the finding of a large one."""
    return prog_judge.shrink(
        program, lambda less: same(found, verdict(less, judge)), seconds
    )


def seed_of(text: str) -> int:
    """Return a seed: a number, or one that is another each day."""
    if text == "today":
        return datetime.date.today().toordinal() * 1_000_000
    return int(text)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--programs", type=int, default=1000, metavar="N")
    parser.add_argument(
        "--seed", type=seed_of, default=0, help="the first, or `today`"
    )
    parser.add_argument(
        "--from",
        dest="source",
        choices=SOURCES,
        default="chance",
        help="a chance of each seed, the corpus, changed ones of it, or both",
    )
    parser.add_argument("--workers", type=int, default=os.cpu_count() or 1)
    parser.add_argument(
        "--shrink", type=float, default=0, help="seconds for each finding"
    )
    parser.add_argument(
        "--worst",
        choices=worst.MODES,
        help="have fastloop run on a system at its worst; invariants alone",
    )
    parser.add_argument("--show", type=int, help="print a seed's program")
    args = parser.parse_args()
    draw = SOURCES[args.source]
    if args.show is not None:
        print(draw(args.show), flush=True)
        result = verdict(draw(args.show), prog_judge.judge)
        print(result.kind, result.text[:3000])
        return 0
    sys.stdout.reconfigure(line_buffering=True)
    begin = time.monotonic()
    if args.source == "corpus":
        args.seed, args.programs = 0, len(prog_corpus.kept())
    judge: Judge = prog_judge.judge
    if args.worst:
        judge = judge_at_worst
        worst.Worst(args.worst).make(bad=True)

    def run(seed: int) -> prog_judge.Verdict:
        return judge(draw(seed))

    counts: Counter[str] = Counter()
    total = found = 0
    seeds = iter(range(args.seed, args.seed + args.programs))
    for result in prog_pool.run_all(seeds, run, args.workers):
        total += 1
        if not result.kind:
            continue
        # Those of a machine that does other work are not seen again.
        hung = result.text.startswith("says nothing")
        again = result.kind in ("invariant", "trace") or hung
        if again and not same(result, verdict(draw(result.seed), judge)):
            result.kind = "once"
        name = signature(result)
        counts[name] += 1
        if result.kind not in FAILING:
            continue
        found += 1
        print(f"--- seed {result.seed}, program {total}: {name[:300]}")
        if counts[name] == 1:
            print(result.text[:1500])
            if args.shrink:
                print(shrunk(draw(result.seed), judge, result, args.shrink))
    seconds = time.monotonic() - begin
    print()
    for name, count in counts.most_common():
        print(f"{count:6} {name[:200]}")
    print(
        f"{total} programs from seed {args.seed}, "
        f"{total / seconds:.1f} a second, {found} findings"
    )
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main())
