"""Prints what conformance runs found, beside asyncio's own counts.

    python tests/conformance/table.py

The tables are those of ``docs/conformance.md``, for its next version: a row
for each CPython, and one for each suite of another project
(``tests/interop/upstream_suites.py``).  It reads what ``plugin.py`` left in
``build/conformance`` and the counts of asyncio's own loop in ``counts.json``;
what has no result there is printed as not run.  The exit status is 1 if a test
failed, if a version counted fewer tests than asyncio's own loop does
there, or if an entry of the left-out list is about no test of any version.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "interop"))
sys.path.insert(0, str(Path(__file__).resolve().parent))

import left_out
import upstream_suites
from plugin import OUT

COUNTS = Path(__file__).with_name("counts.json")
VERSIONS = ("3.11", "3.12", "3.13", "3.14", "3.15", "3.14t")
#: Names of other projects' suites.
SUITES = list(upstream_suites.SUITES)
#: What a test may be if it did not pass, counted on both loops.
REST = ("failed", "skipped")


def results() -> dict[str, dict[str, Any]]:
    """Return what the last runs on fastloop found, by version."""
    found = {}
    for name in VERSIONS:
        path = OUT / f"{name}.json"
        if path.exists():
            found[name] = json.loads(path.read_text())
    return found


def versions(found: dict[str, Any], own: dict[str, Any]) -> Iterator[str]:
    """Yield the table of CPython's tests."""
    yield (
        "| CPython | passed | failed | skipped | left out "
        "| other loop or none | passed on asyncio's own loop |"
    )
    yield "|---|---|---|---|---|---|---|"
    for name in VERSIONS:
        if name not in found:
            yield f"| {name} | not run |"
            continue
        version, counts = found[name]["version"], found[name]["counts"]
        cells = (
            version,
            counts["passed"],
            counts["failed"],
            counts["skipped"],
            counts["left_out"],
            counts["not_run"] + counts["other"] + counts["none"],
            own.get(version, "not counted"),
        )
        yield f"| {' | '.join(map(str, cells))} |"


def suites() -> Iterator[str]:
    """Yield the table of other projects' suites."""
    yield (
        "| suite | passed on asyncio | passed on fastloop | failed | skipped "
        "| passed on asyncio alone |"
    )
    yield "|---|---|---|---|---|---|"
    for name in SUITES:
        path = OUT / f"upstream-{name}.json"
        if not path.exists():
            yield f"| {name} | not run |"
            continue
        found = json.loads(path.read_text())
        own, ours = (found["counts"][kind] for kind in ("asyncio", "fastloop"))
        cells = (
            f"{name} {found['version']}",
            own["passed"],
            ours["passed"],
            *(f"{own.get(k, 0)}, {ours.get(k, 0)}" for k in REST),
            len(found["only_on_asyncio"]),
        )
        yield f"| {' | '.join(map(str, cells))} |"


def notes(found: dict[str, Any], own: dict[str, Any]) -> list[str]:
    """Return what is wrong, a line each."""
    wrong = []
    for result in found.values():
        version = result["version"]
        for test, (outcome, _) in result["tests"].items():
            if outcome == "failed":
                wrong.append(f"{version}: {test} failed")
        wrong += [f"{version}: {line}" for line in result["wrong"]]
        passed = result["counts"]["passed"]
        less = own.get(version, passed) - passed
        if less > 0:
            wrong.append(f"{version}: counts {less} tests fewer than asyncio")
    if len(found) == len(VERSIONS):
        known = {t for result in found.values() for t in result["left_out"]}
        for test, _, _ in left_out.entries():
            if test not in known:
                wrong.append(f"left_out.toml: no {test} anywhere")
    return wrong


def main() -> int:
    found = results()
    own = json.loads(COUNTS.read_text())
    print(*versions(found, own), "", *suites(), sep="\n")
    print()
    wrong = notes(found, own)
    for line in wrong:
        print(f"WRONG: {line}")
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
