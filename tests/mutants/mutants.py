"""Mutants of the C sources, judged by the tests; README.md here tells more.

mutants.py draw --number N --seed S | map | judge | table | lost
"""

from __future__ import annotations

import argparse
import json
import re
import signal
import sys
import time
from collections import Counter, defaultdict
from collections.abc import Callable
from dataclasses import asdict
from itertools import islice
from pathlib import Path
from typing import Any

import edges
import mut_draw
import mut_tree
from mut_draw import Mutant

DRAWN = mut_tree.WORK / "drawn.jsonl"
RESULTS = mut_tree.WORK / "results.jsonl"
#: Files of tests in the first process, of those likely to notice.
FIRST = 5
#: What a change drops that leaks, and the runs that show it.
KEEPS = re.compile("DECREF|CLEAR|SETREF|VISIT|_clear|free")
LEAKS = ["-p", "tests.refcount", "--blocks"]
LEAK_RUNS = 8

Row = dict[str, Any]


def rows(path: Path) -> list[Row]:
    """Return what a file of JSON lines has."""
    text = path.read_text() if path.exists() else ""
    return [json.loads(line) for line in text.splitlines()]


def mutant_of(row: Row) -> Mutant:
    """Return the mutant of a line."""
    return Mutant(**{name: row[name] for name in Mutant.__dataclass_fields__})


def draw(args: argparse.Namespace) -> None:
    """Write mutants, and forget the results of those before."""
    sources = {
        str(path.relative_to(mut_tree.TOP)): path.read_text()
        for path in (mut_tree.TOP / "src").rglob("*.c")
    }
    mut_tree.WORK.mkdir(parents=True, exist_ok=True)
    drawn = filter(mut_tree.differs, mut_draw.draw(sources, args.seed))
    with DRAWN.open("w") as out:
        for number, mutant in enumerate(islice(drawn, args.number)):
            print(json.dumps({"id": number, **asdict(mutant)}), file=out)
    RESULTS.unlink(missing_ok=True)


def make_map(_: argparse.Namespace) -> None:
    """Write which test reaches which edge, as far as that is not known."""
    edges.make(edges.read(), save=True)


class Judge:
    """A copy of the tree, and what is asked of each mutant in it."""

    def __init__(self, args: argparse.Namespace) -> None:
        self.args = args
        self.map = edges.Map()
        self.tree = mut_tree.copy_tree(f"tree-{args.part[0]}")
        self.words = [*edges.PYTEST, *([] if args.all else ["-x"])]
        self.words += [f"--deselect={test}" for test in self.map.failing]

    def __call__(self, mutant: Mutant) -> Row:
        """Return what became of a mutant."""
        files = self.map.reaching(mutant.file, mutant.line)
        if not files:
            return {"verdict": "not reached", "by": []}
        path = self.tree / mutant.file
        text = (mut_tree.TOP / mutant.file).read_text()
        path.write_text(mutant.apply(text))
        try:
            mut_tree.build(self.tree)
            by = self.killers(files)
            if not by and KEEPS.search(mutant.old):
                words = [*self.words, *LEAKS, *files[:FIRST]]
                by = mut_tree.run(self.tree, words, self.leak_hang).failed
        finally:
            path.write_text(text)
        return {"verdict": "killed" if by else "survived", "by": by}

    def leak_hang(self, test: str) -> float:
        """Return how many seconds without another repeated test are a hang."""
        return LEAK_RUNS * self.map.hang(test)

    def killers(self, files: list[str]) -> list[str]:
        """Return the tests that fail: of the first files, then the others."""
        by: list[str] = []
        for part in filter(None, (files[:FIRST], files[FIRST:])):
            words = [*self.words, *part]
            by += mut_tree.run(self.tree, words, self.map.hang).failed
            if by and not self.args.all:
                break
        return by


def judge(args: argparse.Namespace) -> None:
    """Judge the mutants that have no result yet."""
    own, parts = map(int, args.part.split("/"))
    known = {row["id"] for row in rows(RESULTS)}
    ask = Judge(args)
    for row in rows(DRAWN):
        if row["id"] in known or row["id"] % parts != own % parts:
            continue
        begin = time.monotonic()
        result = row | ask(mutant_of(row))
        result["seconds"] = round(time.monotonic() - begin, 1)
        with RESULTS.open("a") as out:
            out.write(json.dumps(result) + "\n")
        words = (row["id"], row["kind"], row["file"], row["line"])
        print(*words, result["verdict"], *result["by"], flush=True)


def table(args: argparse.Namespace) -> None:
    """Print what the tests noticed, and which did."""
    found = rows(RESULTS)
    verdicts = ("killed", "survived", "not reached")
    folders: dict[str, Counter[str]] = defaultdict(Counter)
    for row in found:
        for name in (str(Path(row["file"]).parent), "all"):
            folders[name][row["verdict"]] += 1
    print(f"{'folder':16}" + "".join(f"{v:>13}" for v in verdicts))
    for name in sorted(folders, key=lambda name: (name == "all", name)):
        print(
            f"{name:16}" + "".join(f"{folders[name][v]:13}" for v in verdicts)
        )
    by = [[test.partition("::")[0] for test in row["by"]] for row in found]
    first = Counter(files[0] for files in by if files)
    alone = Counter(files[0] for files in by if len(set(files)) == 1)
    print("\nkilled first, killed alone (true after --all), by file of tests")
    for name in sorted({*edges.test_files(), *first}, key=lambda n: -first[n]):
        print(f"{first[name]:6} {alone[name]:6}  {name}")
    for row in found:
        if row["verdict"] != "killed":
            show(row)


def show(row: Row) -> None:
    """Print a mutant as a difference."""
    print(f"\n{row['id']}: {row['verdict']}: {row['file']}:{row['line']}")
    mutant = mutant_of(row)
    text = (mut_tree.TOP / mutant.file).read_text()
    first = mutant.line - 1
    last = first + 1 + mutant.old.count("\n")
    for sign, lines in (("-", text), ("+", mutant.apply(text))):
        for line in lines.split("\n")[first:last]:
            print(sign + line)


def lost(_: argparse.Namespace) -> None:
    """Print what only tests reach or kill that are gone; fail if any."""
    if not (before := edges.read()):
        sys.exit("no map of what was before: mutants.py map")
    now = edges.make(before)
    old, new = edges.reaching(before), edges.reaching(now)
    gone = sorted(set(old) & set(now["places"]) - set(new))
    for edge in gone:
        print(edge, "was reached by", *old[edge][:3])
    tests = {case for file in now["files"].values() for case in file["cases"]}
    killed = [row for row in rows(RESULTS) if row["by"]]
    alive = [row for row in killed if not tests & {*row["by"]}]
    for row in alive:
        show(row)
        print("was killed by", *row["by"][:3])
    print(f"edges: {len(old)} before, {len(new)} now, {len(gone)} lost")
    print(f"mutants lost: {len(alive)}")
    if gone or alive:
        sys.exit(1)


def main() -> None:
    """Do what the command line says; without a step the first four."""
    parser = argparse.ArgumentParser(description=__doc__)
    steps: dict[str, Callable[[argparse.Namespace], None]] = {
        "draw": draw,
        "map": make_map,
        "judge": judge,
        "table": table,
        "lost": lost,
    }
    parser.add_argument("step", choices=steps, nargs="?")
    flag = parser.add_argument
    flag("--number", type=int, default=40, help="mutants to draw")
    flag("--seed", type=int, default=0, help="what they are drawn by")
    flag("--part", default="0/1", help="1/2: every second, beside 0/2")
    flag("--all", action="store_true", help="do not stop at a failure")
    args = parser.parse_args()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit("mutants: ended"))
    for step in [args.step] if args.step else list(steps)[:4]:
        if args.step or step != "draw" or not DRAWN.exists():
            steps[step](args)


if __name__ == "__main__":
    main()
