"""Prints what conformance runs found, a row a version, beside asyncio's own.

    python tests/conformance/table.py

It reads what ``run.py`` left in ``build/conformance`` and the counts of
asyncio's own loop in ``counts.json``.  A version without a result is printed
as not run.  The exit status is 1 if a test failed or hung, if a version
counted fewer tests than asyncio's own loop does there, or if an entry of the
left-out list is about no test of any version.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parent))

import left_out
from run import COUNTS, OUT

VERSIONS = ("3.11", "3.12", "3.13", "3.14", "3.15", "3.13t")
COLUMNS = {
    "passed": "passed",
    "failed": "failed",
    "hung": "hung",
    "skipped": "skipped",
    "left_out": "left out",
    "not_run": "loop not run",
    "other": "other loop",
    "none": "no loop",
}
OWN = ("passed", "failed", "skipped")


def results() -> dict[str, dict[str, Any]]:
    """Return what the last runs on fastloop found, by version."""
    found = {}
    for name in VERSIONS:
        path = OUT / f"{name}.json"
        if path.exists():
            found[name] = json.loads(path.read_text())
    return found


def row(name: str, found: dict[str, Any] | None, own: dict[str, Any]) -> str:
    if found is None:
        return f"{name:<10}not run"
    cells = [f"{found['version']:<10}"]
    for key, title in COLUMNS.items():
        cells.append(f"{found['counts'][key]:>{len(title) + 2}}")
    counts = own.get(found["version"])
    if counts is None:
        cells.append("   not counted for this version")
    else:
        cells.append("   " + " / ".join(str(counts[key]) for key in OWN))
    return "".join(cells)


def table(found: dict[str, Any], own: dict[str, Any]) -> str:
    head = f"{'python':<10}"
    head += "".join(f"{title:>{len(title) + 2}}" for title in COLUMNS.values())
    head += "   asyncio's own: " + " / ".join(OWN)
    lines = [head, "-" * len(head)]
    lines += [row(name, found.get(name), own) for name in VERSIONS]
    return "\n".join(lines)


def notes(found: dict[str, Any], own: dict[str, Any]) -> list[str]:
    """Return what is wrong, a line each."""
    wrong = []
    for result in found.values():
        version = result["version"]
        for test, (outcome, _) in result["failures"].items():
            wrong.append(f"{version}: {test} {outcome}")
        wrong += [f"{version}: {line}" for line in result["wrong"]]
        counts = own.get(version, result["counts"])
        less = counts["passed"] - result["counts"]["passed"]
        if less > 0:
            wrong.append(f"{version}: counts {less} tests fewer than asyncio")
    if len(found) == len(VERSIONS):
        known = {t for result in found.values() for t in result["left_out"]}
        for entry in left_out.entries():
            if entry["test"] not in known:
                wrong.append(f"left_out.toml: no {entry['test']} anywhere")
    return wrong


def main() -> int:
    found = results()
    own = json.loads(COUNTS.read_text())
    wrong = notes(found, own)
    print("CPython's own test.test_asyncio on fastloop\n")
    print(table(found, own))
    print(
        "\nleft out on both, for what it reads or replaces of asyncio's own:"
    )
    for entry in left_out.entries():
        print(f"  {entry['test']}\n    {entry['attribute']}: {entry['why']}")
    for result in found.values():
        for test in result["again"]:
            print(f"{result['version']}: passed when run once more: {test}")
    for line in wrong:
        print(f"WRONG: {line}")
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
