"""Mutants of the C sources, judged by the tests; README.md here tells more.

mutants.py [--number N] [--seed S]    print the mutants that survive
mutants.py map                        which test reaches which edge
mutants.py lost                       what a deletion of tests loses
"""

from __future__ import annotations

import argparse
import sys
from collections import Counter
from itertools import islice

import edges
import mut_draw
import mut_tree
from mut_draw import Mutant

#: Files of tests in the first process, of those likely to notice.
FIRST = 5


class Judge:
    """A copy of the tree, and what is asked of each mutant in it."""

    def __init__(self) -> None:
        self.map = edges.Map()
        self.tree = mut_tree.copy_tree("tree")
        self.words = [*edges.PYTEST, "-x"]
        self.words += [f"--deselect={test}" for test in self.map.failing()]

    def __call__(self, mutant: Mutant) -> str:
        """Return what became of a mutant."""
        files = self.map.reaching(mutant.file, mutant.line)
        path = self.tree / mutant.file
        text = path.read_text()
        path.write_text(mutant.apply(text))
        try:
            mut_tree.build(self.tree)
            runs = [
                ([*self.words, *part], 60 + 5 * self.map.seconds(part))
                for part in (files[:FIRST], files[FIRST:])
                if part
            ]
            runs += [(one, edges.LIMIT_S) for one in edges.PROGRAMS.values()]
            for words, limit_s in runs:
                if by := mut_tree.run(self.tree, words, limit_s):
                    return f"killed by {by[0]}"
        finally:
            path.write_text(text)
        return "survived"


def judge(number: int, seed: int) -> None:
    """Draw mutants, judge them, and print those that no test notices."""
    ask = Judge()
    sources = {
        str(path.relative_to(mut_tree.TOP)): path.read_text()
        for path in (mut_tree.TOP / "src").rglob("*.c")
    }
    drawn = filter(mut_tree.differs, mut_draw.draw(sources, seed))
    verdicts: Counter[str] = Counter()
    for mutant in islice(drawn, number):
        verdict = ask(mutant)
        verdicts[verdict.split()[0]] += 1
        print(f"{mutant.file}:{mutant.line}: {mutant.kind}: {verdict}")
        if not verdict.startswith("killed"):
            show(mutant, sources[mutant.file])
        sys.stdout.flush()
    print(*(f"{count} {verdict}" for verdict, count in verdicts.items()))


def show(mutant: Mutant, text: str) -> None:
    """Print a mutant as a difference."""
    first = mutant.line - 1
    last = first + 1 + mutant.old.count("\n")
    for sign, lines in (("-", text), ("+", mutant.apply(text))):
        for line in lines.split("\n")[first:last]:
            print(sign + line)


def lost() -> None:
    """Print what only tests reached that are gone; fail if any."""
    if not (before := edges.read()):
        sys.exit("no map of what was before: mutants.py map")
    now = edges.make(before)
    old, new = edges.reaching(before), edges.reaching(now)
    gone = sorted(set(old) & set(now["places"]) - set(new))
    for edge in gone:
        print(edge, "was reached by", *old[edge][:3])
    print(f"edges: {len(old)} before, {len(new)} now, {len(gone)} lost")
    if gone:
        sys.exit(1)


def main() -> None:
    """Do what the command line says."""
    parser = argparse.ArgumentParser(
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("step", choices=("map", "lost"), nargs="?")
    parser.add_argument("--number", type=int, default=40)
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args()
    if args.step == "map":
        edges.make(edges.read(), save=True)
    elif args.step == "lost":
        lost()
    else:
        judge(args.number, args.seed)


if __name__ == "__main__":
    main()
