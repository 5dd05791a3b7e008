"""Runs this interpreter's own test.test_asyncio on fastloop, and judges it.

    python tests/conformance/run.py [MODULE...] [--loop asyncio] [--jobs N]

Every module of the package runs in a process of its own (``child.py``); a
test that hangs or crashes ends its process, is counted, and the rest of the
module goes on in another.  What is left out is written in ``left_out.toml``
and nowhere else.  A test that fails is run once more, alone: what a loaded
machine did is printed as such and not hidden.

The outcome goes to ``build/conformance/NAME.json`` for ``table.py``; the
exit status is 0 if nothing failed or hung and the left-out list is right.
With ``--loop asyncio`` the same is done for asyncio's own loop;
``--record`` then writes its counts into ``counts.json``.
"""

from __future__ import annotations

import argparse
import json
import pkgutil
import platform
import subprocess
import sys
import sysconfig
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import left_out

HERE = Path(__file__).resolve().parent
OUT = HERE.parent.parent / "build" / "conformance"
COUNTS = HERE / "counts.json"
#: Seconds for a module; the child's own limit for each test comes first.
MODULE_LIMIT = 900
#: What a module's process may leave: a hang or a crash each.
RESTARTS = 10


def version() -> str:
    """Return this interpreter's exact version, with a t without a GIL."""
    free = sysconfig.get_config_var("Py_GIL_DISABLED")
    return platform.python_version() + ("t" if free else "")


@dataclass
class Verdict:
    """What became of one test."""

    outcome: str  # passed, failed, hung, skipped
    loop: str = "none"  # ran, made, other, none: see child.py
    detail: str = ""
    again: bool = False  # it passed when it was run once more


@dataclass
class Module:
    """One module of the package, and its verdicts by test id."""

    name: str
    kind: str
    verdicts: dict[str, Verdict] = field(default_factory=dict)
    left_out: list[str] = field(default_factory=list)
    wrong: list[str] = field(default_factory=list)
    log: str = ""

    def run(self) -> None:
        """Run all of it, then what failed once more."""
        for _ in range(RESTARTS):
            if self.run_rest():
                break
        else:
            self.wrong.append(f"{self.name}: hung or crashed {RESTARTS} times")
        failed = [t for t, v in self.verdicts.items() if v.outcome == "failed"]
        for test in failed:
            self.run_again(test)

    def run_rest(self) -> bool:
        """Run what has no verdict yet; True when nothing is left to run."""
        lines, code = self.start(["--but", *self.verdicts])
        began = self.take(lines)
        if began is None and code != 0:
            self.verdicts[f"{self.name}.(module)"] = Verdict(
                "failed", detail=f"exit status {code}\n{self.log[-2000:]}"
            )
            return True
        if began is None:
            return True
        hung = "Timeout (" in self.log[-20000:] or code == 124
        self.verdicts[began] = Verdict(
            "hung" if hung else "failed",
            detail=f"exit status {code}\n{self.log[-4000:]}",
        )
        return False

    def run_again(self, test: str) -> None:
        lines, _ = self.start(["--only", test])
        for line in lines:
            if line.get("test") == test and line.get("outcome") == "passed":
                passed = Verdict("passed", line["loop"], again=True)
                self.verdicts[test] = passed

    def take(self, lines: list[dict[str, Any]]) -> str | None:
        """Note the verdicts; return the test that began and never ended."""
        began = None
        for line in lines:
            if "left_out" in line:
                self.left_out = line["left_out"]
                self.wrong = line["wrong"]
            elif "began" in line:
                began = line["test"]
            else:
                began = None if line["test"] == began else began
                self.verdicts[line["test"]] = Verdict(
                    line["outcome"], line["loop"], line["detail"]
                )
        return began

    def start(self, which: list[str]) -> tuple[list[dict[str, Any]], int]:
        """Run the child; return what it wrote and its exit status."""
        with tempfile.TemporaryDirectory() as folder:
            results = Path(folder) / "results"
            tests = Path(folder) / "tests"
            tests.write_text("\n".join(which[1:]))
            results.touch()
            command = [sys.executable, "-W", "default", "-bb"]
            command += [str(HERE / "child.py"), self.kind, self.name]
            command += [str(results), which[0], str(tests)]
            log = Path(folder) / "log"
            with open(log, "wb") as out:
                code = self.wait(command, folder, out)
            self.log = log.read_text(errors="replace")
            lines = results.read_text().splitlines()
        return [json.loads(line) for line in lines], code

    @staticmethod
    def wait(command: list[str], folder: str, out: Any) -> int:
        child = subprocess.Popen(
            command,
            cwd=folder,
            stdin=subprocess.DEVNULL,
            stdout=out,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
        try:
            return child.wait(MODULE_LIMIT)
        except subprocess.TimeoutExpired:
            child.kill()
            child.wait()
            return 124


def package_modules() -> list[str]:
    """Return the names of the package's test modules, the slow ones first."""
    import test.test_asyncio as package

    slow = ("test_tasks", "test_events", "test_subprocess", "test_ssl")
    found = [m.name for m in pkgutil.iter_modules(package.__path__)]
    found = [name for name in found if name.startswith("test_")]
    return sorted(found, key=lambda name: (name not in slow, name))


def count(modules: list[Module]) -> dict[str, int]:
    """Return how many tests came to which end.

    Only those in which the loop in question ran are passed or failed ones.
    """
    counts = dict.fromkeys(
        "passed failed hung skipped left_out not_run other none".split(), 0
    )
    column = {"ran": "passed", "made": "not_run"}
    for module in modules:
        counts["left_out"] += len(module.left_out)
        for verdict in module.verdicts.values():
            if verdict.outcome == "passed":
                counts[column.get(verdict.loop, verdict.loop)] += 1
            else:
                counts[verdict.outcome] += 1
    return counts


def report(modules: list[Module]) -> dict[str, Any]:
    every = {t: v for m in modules for t, v in m.verdicts.items()}
    bad = {t: v for t, v in every.items() if v.outcome in ("failed", "hung")}
    return {
        "version": version(),
        "counts": count(modules),
        "failures": {t: [v.outcome, v.detail] for t, v in bad.items()},
        "again": sorted(t for t, v in every.items() if v.again),
        "wrong": [
            *left_out.mistakes(),
            *(line for module in modules for line in module.wrong),
        ],
        "left_out": [t for module in modules for t in module.left_out],
        "tests": {t: [v.outcome, v.loop] for t, v in sorted(every.items())},
    }


def write_junit(path: str, modules: list[Module]) -> None:
    """Write what pytest would write, for tools that read that."""
    suite = ElementTree.Element("testsuite", name="test.test_asyncio")
    for module in modules:
        for name, verdict in module.verdicts.items():
            group, _, test = name.rpartition(".")
            case = ElementTree.SubElement(
                suite, "testcase", classname=group, name=test
            )
            if verdict.outcome in ("failed", "hung"):
                ElementTree.SubElement(
                    case, "failure", message=""
                ).text = verdict.detail.encode("ascii", "replace").decode()
            elif verdict.outcome == "skipped":
                ElementTree.SubElement(
                    case, "skipped", type="unittest", message=verdict.detail
                )
    ElementTree.ElementTree(suite).write(path)


def show(found: dict[str, Any], seconds: float) -> None:
    for test, (outcome, detail) in found["failures"].items():
        print(f"\n{outcome.upper()}: {test}\n{detail.rstrip()}")
    for test in found["again"]:
        print(f"passed only when it was run once more: {test}")
    for line in found["wrong"]:
        print(f"left_out.toml: {line}")
    words = ", ".join(f"{n} {what}" for what, n in found["counts"].items())
    print(f"{found['version']}: {words}; {seconds:.0f} s")


def record(found: dict[str, Any]) -> None:
    known = json.loads(COUNTS.read_text()) if COUNTS.exists() else {}
    known[found["version"]] = found["counts"]["passed"]
    COUNTS.write_text(json.dumps(known, indent=2, sort_keys=True) + "\n")


def main() -> int:
    parser = argparse.ArgumentParser()
    parser.add_argument("modules", nargs="*", metavar="MODULE")
    parser.add_argument("--loop", default="fastloop")
    parser.add_argument("--jobs", type=int, default=2, help="at once (2)")
    parser.add_argument("--junitxml", metavar="FILE")
    parser.add_argument("--name", help="of the result in build/conformance")
    parser.add_argument("--record", action="store_true")
    options = parser.parse_args()
    names = options.modules or package_modules()
    modules = [Module(name, options.loop) for name in names]
    began = time.monotonic()
    with ThreadPoolExecutor(options.jobs) as pool:
        list(pool.map(Module.run, modules))
    found = report(modules)
    show(found, time.monotonic() - began)
    OUT.mkdir(parents=True, exist_ok=True)
    name = options.name or f"{options.loop}-{version()}"
    (OUT / f"{name}.json").write_text(json.dumps(found, indent=1))
    if options.junitxml:
        write_junit(options.junitxml, modules)
    if options.record:
        record(found)
    return 1 if found["failures"] or found["wrong"] else 0


if __name__ == "__main__":
    sys.exit(main())
