"""Measures one case on one loop, in the fresh process it is started in.

    python benchmarks/harness/worker.py LOOP CASE --seconds S
    python benchmarks/harness/worker.py LOOP CASE --clock calls --folder F
    python benchmarks/harness/worker.py LOOP CASE --pause
    python benchmarks/harness/worker.py LOOP

Prints one line of JSON: the figures, or without a case the loop's version.
`run.py` starts it, with --pause: `heat.py` then says when it goes on.
Started by hand it is the shortest way to a profiler.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import time
import traceback
from pathlib import Path
from typing import TextIO

sys.path[0] = str(Path(__file__).resolve().parents[1])

from harness import case, counts, daemons, first_client, heat, loops, parent  # noqa: E402


def _measure(
    args: argparse.Namespace, said: TextIO, counter: counts.Counter | None
) -> dict:
    def mark() -> None:
        used_us = [daemons.cpu_us(row.cpu_of) for row in watched]
        marks.append([*used_us, time.perf_counter() * 1e6])

    def pause() -> bool:
        """Wait for the turn of this loop; say whether to take a sample."""
        mark()
        print(heat.READY, file=said, flush=True)
        word = sys.stdin.readline().strip()
        mark()
        return word == heat.GO

    wanted = case.all_cases()[args.case]
    watched = [row for row in wanted.rows if row.cpu_of]
    marks: list[list[float]] = []  # before and after each pause
    run = case.Run(args.loop, args.seconds)
    if args.pause:
        run.pause = pause
    if counter:
        run.counter = counter
        run.clock = counter.read
        run.seconds = counts.WINDOW_S[args.clock] if wanted.loaded else 0.01
    factory = loops.loop_factory(args.loop)
    first_client.have_one(factory)
    if args.pause:
        pause()
    found = wanted.measure(factory, run)
    if run.counter and not run.counter.was_read:
        found = {}  # it has a clock of its own
    first = wanted.rows[0]
    for at, row in enumerate(watched if args.pause else ()):
        samples = []
        turns = marks[3:-1:2], marks[4::2], found[first.key]["samples"]
        for begin, end, one in zip(*turns, strict=True):
            part = (end[at] - begin[at]) / (end[-1] - begin[-1])
            samples.append(part * (1e6 / one if first.unit == "1/s" else one))
        found[row.key] = case.figure(samples)
    return {"figures": found}


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("loop", choices=loops.LOOPS)
    parser.add_argument("case", nargs="?")
    parser.add_argument("--seconds", type=float, default=0.2)
    parser.add_argument("--clock", choices=counts.KINDS)
    parser.add_argument("--folder", help="where counts are while they run")
    parser.add_argument("--pause", action="store_true")
    args = parser.parse_args()
    counter = None
    if args.clock:
        counter = counts.Counter(args.clock, args.folder)
        if not case.all_cases()[args.case].loaded:
            counter.count_this_process()
    parent.set_up_process()
    # What a library prints is no part of the answer.
    said = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)
    try:
        if args.case is None:
            answer = {"version": loops.version_of(args.loop)}
        else:
            answer = _measure(args, said, counter)
    except BaseException as error:
        traceback.print_exc()
        answer = {"error": f"{type(error).__name__}: {error}"}
    print(json.dumps(answer), file=said, flush=True)


if __name__ == "__main__":
    main()
