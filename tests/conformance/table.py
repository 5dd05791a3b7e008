"""Prints what conformance runs found, a row a version, beside asyncio's own.

    python tests/conformance/table.py
    python tests/conformance/table.py --page docs/conformance.md

It reads what ``run.py`` left in ``build/conformance`` and the counts of
asyncio's own loop in ``counts.json``.  A version without a result is printed
as not run.  The exit status is 1 if a test failed or hung, if a version
counted fewer tests than asyncio's own loop does there, or if an entry of the
left-out list is about no test of any version.

With --page, the counts are written into a page as well, with those of other
projects' suites (``tests/interop/upstream_suites.py``).  A page with a result
missing is left as it is.
"""

from __future__ import annotations

import argparse
import json
import re
import sys
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "interop"))
sys.path.insert(0, str(Path(__file__).resolve().parent))

import left_out
import upstream_suites
from run import COUNTS, OUT

VERSIONS = ("3.11", "3.12", "3.13", "3.14", "3.15", "3.14t")
HEAD = """\
| CPython | passed | failed or hung | skipped | left out \
| other loop or none | passed on asyncio's own loop |
|---|---|---|---|---|---|---|
"""
#: Names of other projects' suites.
SUITES = [suite.name for suite in upstream_suites.SUITES]
BETWEEN = r"(?<=<!-- {0}: begin -->\n).*(?=<!-- {0}: end -->)"


def results() -> dict[str, dict[str, Any]]:
    """Return what the last runs on fastloop found, by version."""
    found = {}
    for name in VERSIONS:
        path = OUT / f"{name}.json"
        if path.exists():
            found[name] = json.loads(path.read_text())
    return found


def table(found: dict[str, Any], own: dict[str, int]) -> str:
    """Return the table of CPython's tests."""
    lines = []
    for name in VERSIONS:
        cells: list[Any] = [name, "not run"]
        if name in found:
            version, counts = found[name]["version"], found[name]["counts"]
            cells = [
                version,
                counts["passed"],
                counts["failed"] + counts["hung"],
                counts["skipped"],
                counts["left_out"],
                counts["not_run"] + counts["other"] + counts["none"],
                own.get(version, "not counted"),
            ]
        lines.append(f"| {' | '.join(map(str, cells))} |\n")
    return HEAD + "".join(lines)


def notes(found: dict[str, Any], own: dict[str, int]) -> list[str]:
    """Return what is wrong, a line each."""
    wrong = []
    for result in found.values():
        version = result["version"]
        for test, (outcome, _) in result["failures"].items():
            wrong.append(f"{version}: {test} {outcome}")
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


def suites_table() -> str:
    """Return the table of other projects' suites."""
    lines = [
        "| suite | passed on asyncio | passed on fastloop "
        "| passed on asyncio alone |",
        "|---|---|---|---|",
    ]
    for name in SUITES:
        found = json.loads((OUT / f"upstream-{name}.json").read_text())
        passed = (
            found["counts"][kind].get("passed", 0)
            for kind in ("asyncio", "fastloop")
        )
        name = f"{found['name']} {found['version']}"
        cells = (name, *passed, len(found["only_on_asyncio"]))
        lines.append(f"| {' | '.join(map(str, cells))} |")
    return "".join(f"{line}\n" for line in lines)


def write_page(path: Path, cpython: str) -> None:
    """Write both tables between their marks; ValueError if one is missing."""
    blocks = {"cpython": cpython, "suites": suites_table()}
    page = path.read_text()
    for name, block in blocks.items():
        pattern = re.compile(BETWEEN.format(name), re.DOTALL)
        if len(pattern.findall(page)) != 1:
            raise ValueError(f"{path} has no section {name}")
        page = pattern.sub(lambda _, block=block: f"\n{block}\n", page)
    path.write_text(page)


def main() -> int:
    parser = argparse.ArgumentParser()
    parser.add_argument("--page", type=Path, metavar="FILE")
    options = parser.parse_args()
    found = results()
    own = json.loads(COUNTS.read_text())
    wrong = notes(found, own)
    print("CPython's own test.test_asyncio on fastloop\n")
    print(table(found, own))
    print("left out on both, for what it reads or replaces of asyncio's own:")
    for test, attribute, why in left_out.entries():
        print(f"  {test}\n    {attribute}: {why}")
    for result in found.values():
        for test in result["again"]:
            print(f"{result['version']}: passed when run once more: {test}")
    names = [*VERSIONS, *(f"upstream-{name}" for name in SUITES)]
    missing = [name for name in names if not (OUT / f"{name}.json").exists()]
    if options.page and missing:
        wrong.append(f"{options.page} is left as it is: no {missing[0]}")
    elif options.page:
        write_page(options.page, table(found, own))
    for line in wrong:
        print(f"WRONG: {line}")
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
