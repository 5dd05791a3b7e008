"""The map: which test reaches which edge of the C code, in how many seconds.

Clang counts the edges (edge_counters.c), mut_plugin.py reads them after each
test.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import subprocess
import sys
import tempfile
import time
from collections import Counter, defaultdict
from pathlib import Path
from typing import Any

import mut_plugin
import mut_tree

FOLDERS = ("unit", "behaviour", "isolated", "fault", "differential")
MAP = mut_tree.WORK / "edges.json"
PYTEST = ["-m", "pytest", "-q", "-p", "no:cacheprovider", "-p", "mut_plugin"]
GENERATED = "tests/differential/programs.py"
#: What runs for each change besides our tests.
PROGRAMS = {
    "CPython's tests": ["-m", "pytest", "-c", "tests/conformance/pytest.ini"]
    + ["-n2", "--pyargs", "test.test_asyncio"],
    "the corpus": [GENERATED, "--workers=2", "--from=corpus"],
}
FLAGS = (
    "-fsanitize-coverage=inline-8bit-counters,pc-table "
    "-fno-optimize-sibling-calls"
)
#: Seconds that a file of tests, or a program, may take.
LIMIT_S = 1200.0
ASK_PLACES = "import mut_plugin as m; print(*m.edges().places())"
#: The edges of each test, by the places of a map.
Cases = dict[str, list[int]]


def digest(*paths: Path) -> str:
    """Return what tells these files from others."""
    made = hashlib.sha1()
    for path in paths:
        made.update(path.read_bytes())
    return made.hexdigest()


def sources() -> list[Path]:
    """Return the files of C."""
    return sorted((mut_tree.TOP / "src").rglob("*.[ch]"))


def test_files() -> list[str]:
    """Return the files of the quick part of the suite."""
    found = [
        path.relative_to(mut_tree.TOP)
        for folder in FOLDERS
        for path in (mut_tree.TOP / "tests" / folder).rglob("test_*.py")
    ]
    return sorted(map(str, found))


def helpers() -> list[Path]:
    """Return what tests share, and the corpus with its generator."""
    tests = mut_tree.TOP / "tests"
    return [
        path
        for path in sorted([*tests.rglob("*.py"), *tests.rglob("corpus.txt")])
        if not path.name.startswith("test_") and path.parent.name != "mutants"
    ]


def build() -> tuple[Path, list[str], list[int]]:
    """Compile a copy of the tree; return it, and each edge and its line."""
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
    return tree, *places(library, [int(one) for one in text.split()])


def places(library: Path, offsets: list[int]) -> tuple[list[str], list[int]]:
    """Return a name for each edge: file, function, which of it; its line."""
    text = subprocess.run(
        ["addr2line", "-f", "-e", library],
        input="\n".join(map(hex, offsets)),
        capture_output=True,
        check=True,
        text=True,
    ).stdout.splitlines()
    seen: Counter[str] = Counter()
    named, lines = [], []
    for function, where in zip(text[::2], text[1::2], strict=True):
        file, _, line = re.sub(r".*/edges/", "", where).partition(":")
        seen[name := f"{file} {function}"] += 1
        named.append(f"{name} {seen[name]}")
        lines.append(int(found[0]) if (found := re.match(r"\d+", line)) else 0)
    return named, lines


def run(tree: Path, words: list[str], number: int) -> tuple[Cases, list[str]]:
    """Run tests or a program; return the edges of each test, or of all."""
    with tempfile.TemporaryDirectory() as folder:
        out, ended = Path(folder, "out"), Path(folder, "ended")
        out.touch()
        ended.mkdir()
        env = {"FL_EDGES": str(ended), "FL_EDGES_OUT": str(out)}
        failed = mut_tree.run(tree, words, LIMIT_S, **env)
        cases = dict(map(json.loads, out.read_text().splitlines()))
        if not cases:
            cases = {"": sorted(mut_plugin.left_in(ended, number))}
    return cases, failed


def make(kept: dict[str, Any], save: bool = False) -> dict[str, Any]:
    """Return a map, of which what is there and not old is kept."""
    tree, named, lines = build()
    made = {"sources": digest(*sources()), "places": named, "lines": lines}
    if any(kept.get(key) != value for key, value in made.items()):
        kept = {"files": {}}
    shared = helpers()
    digests = dict.fromkeys(PROGRAMS, digest(*shared))
    digests |= {
        name: digest(mut_tree.TOP / name, *shared) for name in test_files()
    }
    files = {
        name: file
        for name, file in kept["files"].items()
        if digests.get(name) == file["digest"]
    }
    made["files"] = files
    try:
        for name in sorted(digests.keys() - files.keys()):
            words = PROGRAMS.get(name) or [*PYTEST, name]
            began = time.monotonic()
            cases, failed = run(tree, words, len(named))
            seconds = round(time.monotonic() - began, 1)
            files[name] = {
                "digest": digests[name],
                "cases": cases,
                "seconds": seconds,
                "failed": failed,
            }
            print(f"map: {name}: {seconds} s", *failed, flush=True)
    finally:
        if save:  # what is known when it is interrupted, too
            MAP.write_text(json.dumps(made))
    return made


def read() -> dict[str, Any]:
    """Return the map that was written last, or an empty one."""
    return json.loads(MAP.read_text()) if MAP.exists() else {}


def reaching(found: dict[str, Any]) -> dict[str, list[str]]:
    """Return the tests that reach each edge of src/."""
    by: dict[str, list[str]] = defaultdict(list)
    for name, file in found["files"].items():
        for case, reached in file["cases"].items():
            for edge in reached:
                if found["places"][edge].startswith("src/"):
                    by[found["places"][edge]].append(case or name)
    return by


class Map:
    """What is asked of a map of the present sources."""

    def __init__(self) -> None:
        found = make(read(), save=True)
        self.files: dict[str, dict[str, Any]] = {
            name: found["files"][name] for name in test_files()
        }
        self.reached = {
            name: set().union(*file["cases"].values())
            for name, file in self.files.items()
        }
        #: Of each file of C its edges: line, function, number.
        self.edges: dict[str, list[tuple[int, str, int]]] = defaultdict(list)
        for edge, place in enumerate(found["places"]):
            file, function, _ = place.split()
            at = found["lines"][edge], function, edge
            self.edges[file].append(at)

    def failing(self) -> list[str]:
        """Return the tests that fail without a mutant."""
        return [one for file in self.files.values() for one in file["failed"]]

    def seconds(self, names: list[str]) -> float:
        """Return how long files of tests take."""
        return float(sum(self.files[name]["seconds"] for name in names))

    def reaching(self, file: str, line: int) -> list[str]:
        """Return the files of tests that reach a line's function.

        Those that reach the last edge before the line, or compile the file
        themselves, come first, and of them the fast ones.
        """
        before = [one for one in self.edges[file] if one[0] <= line]
        if not before:
            return []
        last, function, _ = max(before)
        wide = {e for _, name, e in self.edges[file] if name == function}
        near = {e for at, name, e in before if (at, name) == (last, function)}
        prices = {}
        for name, reached in self.reached.items():
            itself = f'"{file}"' in (mut_tree.TOP / name).read_text()
            if reached & wide or itself:
                far = not (reached & near or itself)
                prices[name] = (far, self.files[name]["seconds"])
        return sorted(prices, key=prices.__getitem__)
