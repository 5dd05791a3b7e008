"""Which lines of C each file of tests reaches, by one run of it with gcov."""

from __future__ import annotations

import argparse
import bisect
import hashlib
import itertools
import json
import subprocess
from pathlib import Path
from typing import Any

import mut_tree

FOLDERS = ("unit", "behaviour", "isolated", "fault")
MAP = mut_tree.WORK / "map.json"
#: Of files of C.
Lines = dict[str, list[int]]
PYTEST = ["-m", "pytest", "-q", "-p", "no:cacheprovider", "-p", "mut_plugin"]


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


def reached(objects: Path) -> tuple[Lines, Lines]:
    """Return the lines that counters say ran, and all lines; start anew."""
    ran: Lines = {}
    known: Lines = {}
    data = [str(path.resolve()) for path in objects.rglob("*.gcda")]
    words = ["gcov", "--json-format", "--stdout", *data]
    text = subprocess.check_output(words, cwd=objects) if data else b""
    for unit in map(json.loads, text.splitlines()):
        for file in unit["files"]:
            if file["file"].endswith(".c"):
                lines = [(n["line_number"], n["count"]) for n in file["lines"]]
                known[file["file"]] = sorted({n for n, _ in lines})
                ran[file["file"]] = sorted({n for n, count in lines if count})
    for path in data:
        Path(path).unlink()
    return ran, known


def compiled_by(name: str, known: Lines) -> Lines:
    """Return the files of C that a test compiles itself."""
    text = (mut_tree.TOP / name).read_text()
    return {f: n for f, n in known.items() if f'"{Path(f).name}"' in text}


def make(_: argparse.Namespace) -> None:
    """Run each file of tests whose line in the map is missing or old."""
    tree = mut_tree.copy_tree("gcov")
    objects = mut_tree.build_for_coverage(tree)
    kept = json.loads(MAP.read_text()) if MAP.exists() else {}
    if kept.get("sources") != digest(*sources()):
        kept = {"sources": digest(*sources()), "files": {}, "known": {}}
    reached(objects)
    names = test_files()
    kept["files"] = {n: kept["files"][n] for n in names if n in kept["files"]}
    for name in names:
        now = digest(mut_tree.TOP / name)
        if kept["files"].get(name, {}).get("digest") == now:
            continue
        words = [*PYTEST, name]
        done = mut_tree.run(tree, words, lambda _: 300.0)
        lines, known = reached(objects)
        kept["known"].update(known)
        lines |= compiled_by(name, kept["known"])
        kept["files"][name] = {
            "digest": now,
            "seconds": round(done.seconds, 1),
            "longest": round(done.longest, 1),
            "failed": done.failed,
            "lines": lines,
        }
        print(f"map: {name}: {done.seconds:.1f} s", *done.failed, flush=True)
        MAP.write_text(json.dumps(kept))


class Map:
    """What make() has written, and what is asked of it."""

    def __init__(self) -> None:
        kept = json.loads(MAP.read_text()) if MAP.exists() else {}
        missing = set(test_files()) - set(kept.get("files", {}))
        if kept.get("sources") != digest(*sources()) or missing:
            raise SystemExit("no whole map of these sources: mutants.py map")
        self.files: dict[str, dict[str, Any]] = kept["files"]
        self.known: Lines = kept["known"]
        self.failing = [t for e in self.files.values() for t in e["failed"]]

    def reaching(self, file: str, line: int, most: float) -> list[str]:
        """Return the tests that reach a line, fast and specific ones first.

        gcov knows where a statement begins: the line is the last such one.
        """
        known = self.known[file]
        place = known[max(0, bisect.bisect_right(known, line) - 1)]
        prices = {
            # Seconds, and the more the less of the file a test reaches.
            name: (0.3 + entry["seconds"]) / len(lines) ** 2
            for name, entry in self.files.items()
            if place in (lines := entry["lines"].get(file, []))
        }
        names = sorted(prices, key=lambda name: prices[name])
        sums = itertools.accumulate(self.files[n]["seconds"] for n in names)
        return names[: 1 + sum(total <= most for total in sums)]

    def hang(self, test: str) -> float:
        """Return how many seconds without another test are a hang."""
        entry = self.files.get(test.partition("::")[0], {})
        usual = 5 * entry.get("longest", mut_tree.MOST_HANG)
        return float(max(mut_tree.LEAST_HANG, min(usual, mut_tree.MOST_HANG)))
