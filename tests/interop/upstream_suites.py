"""uvicorn's and websockets' own test suites, on asyncio and on fastloop.

    upstream_suites.py [SUITE...]      uvicorn, websockets; default: both

Each suite runs twice, in an environment of its own in a temporary folder; a
test that passes on asyncio has to pass on fastloop.  What differs is run
again, alone, on both: only a difference that repeats counts, the rest is
printed as wavering.  The exit status is 1 if one counts, or if a suite did
not run.  The counts go to ``build/conformance/upstream-SUITE.json``, for
``tests/conformance/table.py``.

Sources are pinned and checked by hash: uvicorn's is its source distribution
on PyPI; websockets' distributions carry no test of its asyncio code, so that
one is Debian's copy of the release, out of its pool.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import shutil
import subprocess
import sys
import tarfile
import tempfile
import textwrap
import urllib.request
import xml.etree.ElementTree as ElementTree
from dataclasses import dataclass, field
from pathlib import Path

TOP = Path(__file__).resolve().parents[2]
OUT = TOP / "build" / "conformance"
KINDS = ("asyncio", "fastloop")
COMMON = (
    "pytest==9.2.0",
    "pytest-timeout==2.4.0",
    "pytest-xdist[psutil]==3.8.0",
)


@dataclass
class Suite:
    """A suite: where it comes from, what it needs, how it is called."""

    name: str
    version: str
    archive: str
    sha256: str
    folder: str
    requirements: tuple[str, ...]
    arguments: tuple[str, ...]
    debian: str = ""
    path: tuple[str, ...] = ()
    #: Modules the run on fastloop finds first.
    shims: dict[str, str] = field(default_factory=dict)


SUITES = (
    Suite(
        name="uvicorn",
        version="0.54.0",
        archive="uvicorn-0.54.0.tar.gz",
        sha256="a2e33cbfaa0306f8e6b0c13e0cb89d7d"
        "7a2da3e62b90c66e18c33d9807b28620",
        folder="uvicorn-0.54.0",
        requirements=(
            "PyYAML==6.0.3",
            "a2wsgi==1.10.10",
            "click==8.5.1",
            "cryptography==50.0.2",
            "h11==0.16.0",
            "httptools==0.9.0",
            "httpx2==2.16.2",
            "pytest-mock==3.15.1",
            "python-dotenv==1.2.4",
            "trustme==1.2.1",
            "watchfiles==1.3.0",
            "websockets==17.4",
            "wsproto==1.3.2",
            "zttp==0.0.35",
        ),
        arguments=(
            "--ignore=tests/benchmarks",
            # It wants its loop to come from the module uvloop.
            "--deselect=tests/test_auto_detection.py::test_loop_auto",
            "tests",
        ),
        # What uvicorn takes where a program names no loop.
        shims={"uvloop.py": "from fastloop import *\n"},
    ),
    Suite(
        name="websockets",
        version="15.0.1",
        archive="python-websockets_15.0.1.orig.tar.gz",
        sha256="8451495265af3e368f794c4dc15c99ce"
        "90c771d95560f542bff8c64b5455af3b",
        folder="websockets-15.0.1",
        requirements=("werkzeug==3.1.9",),
        arguments=("tests/asyncio", "tests/legacy"),
        debian="pool/main/p/python-websockets",
        path=("src",),
    ),
)


def say(text: str) -> None:
    """Print a line at once."""
    print(f"upstream: {text}", flush=True)


def command(*words: object, cwd: Path | None = None) -> None:
    """Run a command that has to succeed; its output shows when it fails."""
    done = subprocess.run(
        [str(word) for word in words],
        cwd=cwd,
        text=True,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
    )
    if done.returncode:
        sys.exit(f"upstream: {words}\n{done.stdout}")


def fetch_from_debian(suite: Suite, folder: Path) -> None:
    """Get a source package's tarball from the Debian mirror apt uses."""
    words = ["apt-get", "indextargets", "--format", "$(REPO_URI)"]
    mirrors = subprocess.check_output(words, text=True).split()
    mirror = next(
        (m for m in mirrors if m.endswith("/debian/")),
        "http://deb.debian.org/debian/",
    )
    url = f"{mirror}{suite.debian}/{suite.archive}"
    urllib.request.urlretrieve(url, folder / suite.archive)


def fetch_from_pypi(suite: Suite, folder: Path) -> None:
    """Get a source distribution with pip, which checks the hash too."""
    wanted = folder / "wanted.txt"
    wanted.write_text(
        f"{suite.name}=={suite.version} --hash=sha256:{suite.sha256}\n"
    )
    command(
        *(sys.executable, "-m", "pip", "-q", "download", "--no-deps"),
        *("--no-binary", suite.name, "-d", folder, "-r", wanted),
    )


def fetch(suite: Suite, folder: Path) -> Path:
    """The suite's unpacked source, once its hash is right."""
    (fetch_from_debian if suite.debian else fetch_from_pypi)(suite, folder)
    archive = folder / suite.archive
    found = hashlib.sha256(archive.read_bytes()).hexdigest()
    if found != suite.sha256:
        sys.exit(f"upstream: {suite.archive} has the sha256 {found}")
    with tarfile.open(archive) as packed:
        packed.extractall(folder, filter="data")
    return folder / suite.folder


@dataclass
class Run:
    """What runs a suite's tests on either loop."""

    suite: Suite
    source: Path
    python: Path
    folder: Path
    workers: str

    def environment(self, kind: str) -> dict[str, str]:
        """The variables of a run; fastloop is this tree's.

        The package alone: the metadata that builds leave beside it would
        have pytest load the plugin a second time.
        """
        shims = self.folder / "shims"
        shims.mkdir(exist_ok=True)
        for name, text in self.suite.shims.items():
            (shims / name).write_text(text)
        package = shims / "fastloop"
        if not package.exists():
            package.symlink_to(TOP / "fastloop", target_is_directory=True)
        paths = [str(self.source / name) for name in self.suite.path]
        if kind == "fastloop":
            paths.append(str(shims))
        env = {k: v for k, v in os.environ.items() if k != "PYTEST_ADDOPTS"}
        return {**env, "PYTHONPATH": os.pathsep.join(paths)}

    def __call__(
        self, kind: str, *tests: str, workers: str = "0"
    ) -> dict[str, str]:
        """Run tests on a loop; outcome of each by its name."""
        report = self.folder / f"{kind}.xml"
        report.unlink(missing_ok=True)
        words = [
            *(self.python, "-m", "pytest", "-q", "-p", "no:cacheprovider"),
            f"--junitxml={report}",
            # After the suite's own, which may ask for another number.
            *("-o", "addopts=", "-n", workers, "--timeout=120"),
        ]
        if kind == "fastloop":
            words += ["-p", "fastloop.testing.plugin", "--fastloop"]
        with open(self.folder / f"{kind}.log", "w") as log:
            subprocess.run(
                [*map(str, words), *tests],
                cwd=self.source,
                env=self.environment(kind),
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                timeout=1800,
            )
        if not report.exists():
            say((self.folder / f"{kind}.log").read_text()[-3000:])
            sys.exit(f"upstream: {self.suite.name} did not run on {kind}")
        return outcomes(report)


def outcomes(report: Path) -> dict[str, str]:
    """Outcome of each test in a JUnit report, as pytest names it."""
    found = {}
    for case in ElementTree.parse(report).iter("testcase"):
        kinds = {child.tag for child in case}
        outcome = next(
            (k for k in ("error", "failure", "skipped") if k in kinds),
            "passed",
        )
        found[f"{case.get('classname')}::{case.get('name')}"] = outcome
    return found


def node_id(name: str, source: Path) -> str:
    """A report's `pkg.module.Class::test` as pytest takes it."""
    where, _, test = name.partition("::")
    parts = where.split(".")
    for length in range(len(parts), 0, -1):
        path = "/".join(parts[:length]) + ".py"
        if (source / path).exists():
            return "::".join([path, *parts[length:], test])
    return name


def only_on_asyncio(results: dict[str, dict[str, str]]) -> list[str]:
    """The tests that pass on asyncio and not on fastloop."""
    return sorted(
        name
        for name, outcome in results["asyncio"].items()
        if outcome == "passed" and results["fastloop"].get(name) != "passed"
    )


def compare(suite: Suite, run: Run) -> bool:
    """Run a suite on both loops; True when fastloop passes what asyncio
    passes.
    """
    results = {}
    for kind in KINDS:
        results[kind] = run(kind, *suite.arguments, workers=run.workers)
        found = counts(results[kind])
        say(f"{suite.name} {suite.version} on {kind}: {found}")
    differing = only_on_asyncio(results)
    repeated = []
    for name in differing:
        again = {k: run(k, node_id(name, run.source)) for k in KINDS}
        if only_on_asyncio(again):
            repeated.append(name)
            log = (run.folder / "fastloop.log").read_text()
            print(textwrap.indent(log[-2500:], "  "))
        else:
            say(f"wavers: {name}")
            for kind in KINDS:
                results[kind].update(again[kind])
    for name in repeated:
        say(f"passes on asyncio alone: {name}")
    if not any(v == "passed" for v in results["asyncio"].values()):
        say(f"{suite.name}: no test passed on asyncio")
        return False
    record(suite, results, repeated)
    return not repeated


def counts(outcome: dict[str, str]) -> dict[str, int]:
    """How many tests had each outcome."""
    values = list(outcome.values())
    return {k: values.count(k) for k in sorted(set(values))}


def record(
    suite: Suite, results: dict[str, dict[str, str]], repeated: list[str]
) -> None:
    """Write the counts for the table, second looks included."""
    found = {
        "name": suite.name,
        "version": suite.version,
        "counts": {kind: counts(results[kind]) for kind in KINDS},
        "only_on_asyncio": repeated,
    }
    OUT.mkdir(parents=True, exist_ok=True)
    path = OUT / f"upstream-{suite.name}.json"
    path.write_text(json.dumps(found, indent=1) + "\n")


def main() -> int:
    """Run the suites that were asked for."""
    parser = argparse.ArgumentParser(description="upstream test suites")
    names = [suite.name for suite in SUITES]
    parser.add_argument("suite", nargs="*", choices=[*names, []])
    parser.add_argument("--workers", default="2", help="pytest-xdist's -n")
    options = parser.parse_args()
    good = True
    for suite in SUITES:
        if options.suite and suite.name not in options.suite:
            continue
        folder = Path(tempfile.mkdtemp(prefix="fastloop-upstream-"))
        try:
            source = fetch(suite, folder)
            command(sys.executable, "-m", "venv", folder / "venv")
            python = folder / "venv/bin/python"
            command(
                *(python, "-m", "pip", "-q", "install"),
                *(*COMMON, *suite.requirements),
            )
            run = Run(suite, source, python, folder, options.workers)
            good = compare(suite, run) and good
        finally:
            shutil.rmtree(folder)
    return 0 if good else 1


if __name__ == "__main__":
    sys.exit(main())
