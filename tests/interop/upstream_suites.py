"""The own test suites of other projects, on asyncio and on fastloop.

    python -m pytest -o faulthandler_timeout=0 tests/interop/upstream_suites.py

`upstream_suites.toml` is the table of the suites, `upstream_suites.txt` pins
what they need.  Each runs twice.  A test that passes on asyncio has to pass on
fastloop, unless its row in `differs` has the reason why it does not; then it
has to fail.  What differs runs again, alone, on both: only a difference that
repeats counts.  A run on fastloop that makes no loop fails.

The counts go to ``build/conformance/upstream-SUITE.json``, for
``tests/conformance/table.py``.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import shlex
import shutil
import subprocess
import sys
import tarfile
import tomllib
import urllib.request
import venv
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

HERE = Path(__file__).parent
TOP = HERE.parents[1]
OUT = TOP / "build" / "conformance"
CACHE = Path(
    os.environ.get("FASTLOOP_CACHE") or Path.home() / ".cache" / "fastloop"
)
KINDS = ("asyncio", "fastloop")
SUITES: dict[str, dict[str, Any]] = tomllib.loads(
    (HERE / "upstream_suites.toml").read_text()
)
#: A suite's own options ask for coverage, and for other numbers of workers.
PYTEST = "-m pytest -o addopts= -p no:cacheprovider --timeout=120"
#: Seconds that a suite may take.
LIMIT = 1200


def command(*words: object) -> str:
    """Run a command that has to succeed; return its output."""
    done = subprocess.run(
        list(map(str, words)),
        text=True,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
    )
    assert done.returncode == 0, done.stdout
    return done.stdout


@pytest.fixture
def python(suite: dict[str, Any]) -> Path:
    """The interpreter of an environment that has what the suite needs."""
    if suite.get("here"):
        return Path(sys.executable)
    pins = HERE / "upstream_suites.txt"
    name = hashlib.sha256(pins.read_bytes()).hexdigest()[:16]
    folder = CACHE / "suites" / name
    python = folder / "bin" / "python"
    ready = folder / "ready"
    if not ready.exists():
        venv.create(folder, clear=True, with_pip=True)
        command(python, "-m", "pip", "-q", "install", "--no-deps", "-r", pins)
        ready.touch()
    return python


def fetch(name: str, suite: dict[str, Any], folder: Path) -> None:
    """Get a suite's archive: its distribution on PyPI, or out of Debian's
    pool if that distribution has no tests.
    """
    if "debian" in suite:
        url = f"http://deb.debian.org/debian/pool/main/{suite['debian']}"
        urllib.request.urlretrieve(url, folder / Path(url).name)
        return
    command(
        *(sys.executable, "-m", "pip", "-q", "download", "--no-deps"),
        *("--no-binary", name, "-d", folder, f"{name}=={suite['version']}"),
    )


@pytest.fixture
def source(name: str, suite: dict[str, Any]) -> Path:
    """A suite's source, unpacked anew."""
    folder = CACHE / "suites" / f"{name}-{suite['version']}"
    folder.mkdir(parents=True, exist_ok=True)
    if not list(folder.glob("*.tar.gz")):
        fetch(name, suite, folder)
    (archive,) = folder.glob("*.tar.gz")
    assert hashlib.sha256(archive.read_bytes()).hexdigest() == suite["sha256"]
    shutil.unpack_archive(archive, folder, filter="data")
    with tarfile.open(archive) as packed:
        return folder / packed.getnames()[0].partition("/")[0]


@pytest.fixture
def server(suite: dict[str, Any], request: pytest.FixtureRequest) -> Any:
    """The server of conftest.py that a suite needs, if it needs one."""
    return "server" in suite and request.getfixturevalue(suite["server"])


@dataclass
class Run:
    """What runs a suite's tests on either loop; call it."""

    suite: dict[str, Any]
    source: Path
    python: Path
    server: Any
    folder: Path
    #: What the last run printed.
    log: str = ""

    def text(self, text: str) -> str:
        """A text of the table, with the address of its server."""
        return text.format(**vars(self.server)) if self.server else text

    def environment(self, kind: str) -> dict[str, str]:
        """The variables of a run; fastloop is this tree's.

        The package alone: the metadata that builds leave beside it would
        have pytest load the plugin a second time.
        """
        own = {k: v for k, v in os.environ.items() if k[:6] != "PYTEST"}
        own |= {k: self.text(v) for k, v in self.suite.get("env", {}).items()}
        own["PATH"] = f"{self.python.parent}{os.pathsep}{own['PATH']}"
        path = self.folder / kind
        path.mkdir(exist_ok=True)
        package = path / "fastloop"
        if kind == "fastloop" and not package.exists():
            package.symlink_to(TOP / "fastloop", target_is_directory=True)
            # What a program takes that looks for uvloop by itself.
            if self.suite.get("uvloop"):
                (path / "uvloop.py").write_text("from fastloop import *\n")
        return {**own, "PYTHONPATH": f"{path}{os.pathsep}{self.source}/src"}

    def __call__(self, kind: str, workers: int, *tests: str) -> dict[str, str]:
        """Run tests on a loop; return the outcome of each by its name."""
        report = self.folder / f"{kind}.jsonl"
        report.unlink(missing_ok=True)
        words = [*shlex.split(PYTEST), f"--report-log={report}"]
        words += ["-n", str(workers)]
        words += map(self.text, self.suite.get("options", ()))
        if kind == "fastloop":
            if not self.suite.get("here"):  # else the plugin is installed
                words += ["-p", "fastloop.testing.plugin"]
            words.append("--fastloop")
        done = subprocess.run(
            [self.python, *words, *tests],
            cwd=self.source,
            env=self.environment(kind),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            errors="replace",
            timeout=LIMIT,
        )
        print(f"{kind}: {done.stdout[-4000:]}")
        assert report.exists(), "pytest did not begin"
        self.log = done.stdout
        return outcomes(report)


def outcomes(report: Path) -> dict[str, str]:
    """The outcome of each test in a log of pytest's reports.

    One of which its project expects either has an outcome of its own.
    """
    found = {}
    for line in report.read_text().splitlines():
        one = json.loads(line)
        if one["$report_type"] == "TestReport" and (
            one["when"] == "call" or one["outcome"] != "passed"
        ):
            found[one["nodeid"]] = one["outcome"]
            if "wasxfail" in one:
                found[one["nodeid"]] = "expected to fail"
    return found


def only_on_asyncio(found: dict[str, dict[str, str]]) -> set[str]:
    """The tests that pass on asyncio and not on fastloop."""
    return {
        name
        for name, outcome in found["asyncio"].items()
        if outcome == "passed" and found["fastloop"].get(name) != "passed"
    }


@pytest.mark.timeout(3 * LIMIT)
@pytest.mark.parametrize(("name", "suite"), SUITES.items(), ids=list(SUITES))
def test_what_passes_on_asyncio_passes_on_fastloop(
    name, suite, source, python, server, tmp_path
):
    if suite.get("compiled"):  # the package that pip installed is tested
        shutil.rmtree(source / name)
    run = Run(suite, source, python, server, tmp_path)
    left_out = [f"--deselect={test}" for test in suite.get("left_out", ())]
    words = [*left_out, *suite["arguments"]]
    workers = suite.get("workers", 2)
    found = {kind: run(kind, workers, *words) for kind in KINDS}
    # The plugin of pytest prints how many loops the last run made.
    assert re.search("^fastloop: [1-9].* made$", run.log, re.MULTILINE)
    differs = suite.get("differs", {})
    for test in sorted(only_on_asyncio(found) ^ set(differs)):
        again = {kind: run(kind, 0, test) for kind in KINDS}
        for kind in KINDS:
            found[kind] |= again[kind]
    counts = {kind: Counter(found[kind].values()) for kind in KINDS}
    print(name, suite["version"], counts)
    alone = only_on_asyncio(found)
    result = {"name": name, "version": suite["version"], "counts": counts}
    OUT.mkdir(parents=True, exist_ok=True)
    (OUT / f"upstream-{name}.json").write_text(
        json.dumps({**result, "only_on_asyncio": sorted(alone)}, indent=1)
    )
    assert "passed" in counts["asyncio"]
    assert alone == set(differs)
