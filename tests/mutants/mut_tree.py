"""Copies of the tree to build mutants in, and bounded runs of tests there."""

from __future__ import annotations

import contextlib
import filecmp
import functools
import json
import os
import resource
import shlex
import shutil
import signal
import subprocess
import sys
import tempfile
import time
import uuid
from collections.abc import Callable
from pathlib import Path

from mut_draw import Mutant

#: How many seconds of a test are a hang.
Hang = Callable[[str], float]
HERE = Path(__file__).resolve().parent
TOP = HERE.parents[1]
WORK = TOP / "build" / "mutants"
#: Bytes of address space, and of a file, that a process may have.
MOST_MEMORY, MOST_FILE = 8 << 30, 1 << 30
#: pytest's exit status where all tests were skipped at once.
NO_TESTS = 5
#: Seconds that a test may take; what the tests wait for derives from it.
TEST_LIMIT = 60
#: Seconds without a test's beginning that are a hang, at least and at most.
LEAST_HANG, MOST_HANG = 15, TEST_LIMIT + 20
#: os._exit() writes no counters by itself.
SITE = """\
import ctypes, os, sys
def _exit(status, leave=os._exit):
    core = sys.modules.get("fastloop._core")
    if core is not None:
        ctypes.CDLL(core.__file__).fl_mutants_dump()
    leave(status)
os._exit = _exit
"""


def copy_tree(name: str) -> Path:
    """Bring a copy of the tree, in build/mutants, to the present state."""
    tree = WORK / name
    words = ["git", "ls-files", "-co", "--exclude-standard"]
    for line in subprocess.check_output(words, cwd=TOP, text=True).split("\n"):
        here, there = TOP / line, tree / line
        if not here.is_file() or (
            there.exists() and filecmp.cmp(here, there, shallow=False)
        ):
            continue
        there.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(here, there)
    return tree


def build(tree: Path, **env: str) -> None:
    """Compile what has changed in a copy."""
    words = [sys.executable, "setup.py", "-q", "build_ext", "--inplace"]
    subprocess.run(words, cwd=tree, env={**os.environ, **env}, check=True)


@functools.lru_cache(100)
def compiled(file: str, text: str) -> bytes:
    """Return the object file of a text, b"" if it does not compile."""
    units = json.loads((TOP / "compile_commands.json").read_text())
    command = {unit["file"]: unit["command"] for unit in units}[file]
    start = shlex.split(command.partition(" -MD ")[0])
    with tempfile.TemporaryDirectory() as folder:
        unit, out = Path(folder, Path(file).name), Path(folder, "o")
        unit.write_text(text)
        words = ["-w", "-g0", "-O2", "-c", str(unit), "-o", str(out)]
        subprocess.run([*start, *words], cwd=TOP, capture_output=True)
        return out.read_bytes() if out.exists() else b""


def differs(mutant: Mutant) -> bool:
    """Tell whether a mutant compiles, and to other object code."""
    text = (TOP / mutant.file).read_text()
    made = compiled(mutant.file, mutant.apply(text))
    return made not in (b"", compiled(mutant.file, text))


def limit_process() -> None:
    """Bound a child's memory and files."""
    resource.setrlimit(resource.RLIMIT_AS, (MOST_MEMORY, MOST_MEMORY))
    resource.setrlimit(resource.RLIMIT_FSIZE, (MOST_FILE, MOST_FILE))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))


def end_all(process: subprocess.Popen[bytes], mark: str) -> None:
    """End a process, its group, and those that left it but bear its mark."""
    with contextlib.suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
    process.wait()
    for folder in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):
            if mark.encode() in (folder / "environ").read_bytes():
                os.kill(int(folder.name), signal.SIGKILL)


class Run:
    """What became of a run of tests."""

    def __init__(self, passed: bool, progress: str, seconds: float) -> None:
        rows = [line.split("\t") for line in progress.splitlines()]
        begun = [row[2] for row in rows if row[1] == "begin"]
        failed = dict.fromkeys(row[2] for row in rows if row[1] == "failed")
        if not passed and not failed:
            failed = {(begun or ["the beginning"])[-1]: None}
        self.failed = list(failed)
        self.seconds = seconds
        times = [float(row[0]) for row in rows]
        gaps = [b - a for a, b in zip(times, times[1:], strict=False)]
        self.longest = max(gaps, default=0.0)


def run(tree: Path, words: list[str], hang: Hang, **more: str) -> Run:
    """Run pytest, or another program, in a copy; end it where it hangs."""
    mark = f"fastloop-mutant-{uuid.uuid4().hex}"
    folder = tempfile.mkdtemp(prefix="m")  # short: names of sockets are
    progress = Path(folder, "progress")
    progress.touch()
    env = {
        "MUTANT_PROGRESS": str(progress),
        "MUTANT_MARK": mark,
        "PYTEST_TIMEOUT": str(TEST_LIMIT),
        "PYTHONPATH": f"{tree}{os.pathsep}{HERE}",
        "TMPDIR": folder,
        **more,
    }
    began = time.monotonic()
    with open(tree / "output.txt", "wb") as out:
        process = subprocess.Popen(
            [sys.executable, *words],
            cwd=tree,
            env={**os.environ, **env},
            stdin=subprocess.DEVNULL,
            stdout=out,
            stderr=out,
            start_new_session=True,
            preexec_fn=limit_process,
        )
        try:
            passed = wait(process, progress, hang)
        finally:
            end_all(process, mark)
    done = Run(passed, progress.read_text(), time.monotonic() - began)
    shutil.rmtree(folder, ignore_errors=True)
    return done


def wait(process: subprocess.Popen[bytes], progress: Path, hang: Hang) -> bool:
    """Wait for the end or for a hang; tell whether all passed."""
    text, moved = "", time.monotonic()
    while process.poll() is None:
        time.sleep(0.1)
        seen, now = progress.read_text(), time.monotonic()
        if seen != text:
            text, moved = seen, now
        if now - moved > hang(text.rstrip().rpartition("\t")[2]):
            return False
    return process.returncode in (0, NO_TESTS)
