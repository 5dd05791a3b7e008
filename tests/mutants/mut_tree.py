"""Copies of the tree to build mutants in, and bounded runs of tests there."""

from __future__ import annotations

import contextlib
import filecmp
import functools
import json
import os
import re
import resource
import shlex
import shutil
import signal
import subprocess
import sys
import tempfile
from pathlib import Path

from mut_draw import Mutant

HERE = Path(__file__).resolve().parent
TOP = HERE.parents[1]
WORK = TOP / "build" / "mutants"
#: Bytes of address space, and of a file, that a process may have.
MOST_MEMORY, MOST_FILE = 8 << 30, 1 << 30
#: pytest's exit status where all tests were skipped at once.
NO_TESTS = 5
#: What pytest says of a test that failed.
FAILED = re.compile(r"^(?:FAILED|ERROR) (\S+)", re.MULTILINE)
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


def run(
    tree: Path, words: list[str], limit_s: float, **more: str
) -> list[str]:
    """Run pytest, or another program, in a copy; return what fails.

    That is the tests which pytest names, or else how the process ended.
    """
    folder = tempfile.mkdtemp(prefix="m")  # short: names of sockets are
    env = {
        "PYTEST_TIMEOUT": "60",
        "PYTHONPATH": f"{tree}{os.pathsep}{HERE}",
        "TMPDIR": folder,
        **more,
    }
    output = tree / "output.txt"
    with output.open("wb") as out:
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
            code = process.wait(limit_s)
        except subprocess.TimeoutExpired:
            code = -1
        finally:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            process.wait()
    shutil.rmtree(folder, ignore_errors=True)
    if code in (0, NO_TESTS):
        return []
    said = output.read_text(errors="replace")
    return FAILED.findall(said) or [f"status {code} of {' '.join(words[-2:])}"]
