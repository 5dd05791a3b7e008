"""What a deletion of tests loses: edges and mutants; README.md tells more.

edges.py map | lost
"""

from __future__ import annotations

import argparse
import json
import os
import re
import subprocess
import sys
import tempfile
from collections import Counter, defaultdict
from pathlib import Path
from typing import Any

import edge_plugin
import mut_map
import mut_tree
import mutants

MAP = mut_tree.WORK / "edges.json"
#: What runs for each change besides our tests.
PROGRAMS = {
    "CPython's tests": ["tests/conformance/run.py", "--name", "edges"],
    "the corpus": [mutants.PROGRAMS, "--workers=2", "--from=corpus"],
}
PLUGINS = ["-p", "edge_plugin"]
FLAGS = (
    "-fsanitize-coverage=inline-8bit-counters,pc-table "
    "-fno-optimize-sibling-calls"
)
ASK_PLACES = "import edge_plugin as e; print(*e.edges().places())"
#: The edges of each test, by the places of a map.
Cases = dict[str, list[int]]


def build() -> tuple[Path, list[str]]:
    """Compile a copy of the tree; return it and the place of each edge."""
    tree = mut_tree.copy_tree("edges")
    counters = tree / "src" / "edge_counters.c"
    counters.write_text((mut_tree.HERE / counters.name).read_text())
    (tree / "sitecustomize.py").write_text(mut_tree.SITE)
    mut_tree.build(tree, CC="clang", CFLAGS=FLAGS, FASTLOOP_DEBUG="1")
    with tempfile.TemporaryDirectory() as folder:
        path = os.pathsep.join((str(tree), str(mut_tree.HERE)))
        env = {**os.environ, "FL_EDGES": folder, "PYTHONPATH": path}
        words = [sys.executable, "-c", ASK_PLACES]
        text = subprocess.check_output(words, cwd=tree, env=env, text=True)
    library = next((tree / "fastloop").glob("_core.*.so"))
    return tree, places(library, [int(one) for one in text.split()])


def places(library: Path, offsets: list[int]) -> list[str]:
    """Return a name for each edge: file, function, which edge of it."""
    text = subprocess.run(
        ["addr2line", "-f", "-e", library],
        input="\n".join(map(hex, offsets)),
        capture_output=True,
        check=True,
        text=True,
    ).stdout.splitlines()
    seen: Counter[str] = Counter()
    named = []
    for function, where in zip(text[::2], text[1::2], strict=True):
        file = re.sub(r".*/edges/|:.*", "", where)
        seen[name := f"{file} {function}"] += 1
        named.append(f"{name} {seen[name]}")
    return named


def run(
    tree: Path, words: list[str], number: int
) -> tuple[Cases, mut_tree.Run]:
    """Run tests or a program; return the edges of each test, or of all."""
    with tempfile.TemporaryDirectory() as folder:
        out = Path(folder, "out")
        ended = Path(folder, "ended")
        ended.mkdir()
        os.environ |= {"FL_EDGES": str(ended), "FL_EDGES_OUT": str(out)}
        done = mut_tree.run(tree, words, lambda _: 600.0)
        cases = dict(mutants.rows(out))
        if not cases:
            cases = {"": sorted(edge_plugin.left_in(ended, number))}
    return cases, done


def make(kept: dict[str, Any]) -> dict[str, Any]:
    """Return a map, of which what is there and not old is kept."""
    tree, named = build()
    sources = mut_map.digest(*mut_map.sources())
    if kept.get("sources") != sources or kept.get("places") != named:
        kept = {"sources": sources, "places": named, "files": {}}
    names = [*PROGRAMS, *mut_map.test_files()]
    files = {name: kept["files"].get(name) for name in names}
    for name in names:
        words = PROGRAMS.get(name) or [*mut_map.PYTEST, *PLUGINS, name]
        now = "" if name in PROGRAMS else mut_map.digest(mut_tree.TOP / name)
        if files[name] is not None and files[name]["digest"] == now:
            continue
        cases, done = run(tree, words, len(named))
        files[name] = {"digest": now, "cases": cases}
        print(f"edges: {name}: {done.seconds:.1f} s", *done.failed, flush=True)
    return kept | {"files": files}


def reaching(found: dict[str, Any]) -> dict[str, list[str]]:
    """Return the tests that reach each edge of src/."""
    by: dict[str, list[str]] = defaultdict(list)
    for name, file in found["files"].items():
        for case, reached in file["cases"].items():
            for edge in reached:
                if found["places"][edge].startswith("src/"):
                    by[found["places"][edge]].append(case or name)
    return by


def lost_mutants(tests: set[str]) -> list[dict[str, Any]]:
    """Return the mutants that none of these tests kills, but others did."""
    killed = [row for row in mutants.rows(mutants.RESULTS) if row["by"]]
    return [row for row in killed if not tests & {*row["by"]}]


def lost(before: dict[str, Any], now: dict[str, Any]) -> int:
    """Print what only tests reach or kill that are gone; return how much."""
    old, new = reaching(before), reaching(now)
    known = set(now["places"])
    gone = [edge for edge in old if edge in known and edge not in new]
    for edge in sorted(gone):
        print(edge, "was reached by", *old[edge][:3])
    tests = {case for file in now["files"].values() for case in file["cases"]}
    for row in (lost := lost_mutants(tests | {mutants.PROGRAMS})):
        mutants.show(row)
        print("was killed by", *row["by"][:3])
    print(f"edges: {len(old)} before, {len(new)} now, {len(gone)} lost")
    print(f"mutants lost: {len(lost)}")
    return len(gone) + len(lost)


def main() -> None:
    """Do what the command line says."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("step", choices=("map", "lost"))
    args = parser.parse_args()
    kept = json.loads(MAP.read_text()) if MAP.exists() else {}
    if args.step == "lost" and not kept:
        sys.exit("no map of what was before: edges.py map")
    found = make(kept)
    if args.step == "map":
        MAP.write_text(json.dumps(found))
    elif lost(kept, found):
        sys.exit(1)


if __name__ == "__main__":
    main()
