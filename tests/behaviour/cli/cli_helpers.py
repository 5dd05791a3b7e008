"""Runs commands of the command line, and finds what they leave behind."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from builds import environment
from patience import TEST_LIMIT

from fastloop.cli.commands import wrapped

#: Seconds a command may take before the test's own time limit.
LIMIT = TEST_LIMIT * 5 / 6

Done = subprocess.CompletedProcess


def one_sentence(text: str) -> str:
    """Return the sentence that a refused command wrote, in one line.

    The end of a program's output, which is indented, stays as it is.
    """
    first, *output = text.rstrip("\n").split("\n    ")
    said = first.replace("\n", " ")
    assert first == wrapped(said)
    assert said.startswith("fastloop: ")
    return "\n    ".join([said.removeprefix("fastloop: "), *output])


class Commands:
    """Commands that are run in a folder of the test's own."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def write(self, name: str, text: str) -> str:
        """Write a file; return its name."""
        (self.folder / name).write_text(text)
        return name

    def python(
        self, *words: str, stdin: str | None = None, **env: str
    ) -> Done[str]:
        """Run an interpreter with these words to its end."""
        return subprocess.run(
            [sys.executable, *words],
            capture_output=True,
            text=True,
            input=stdin,
            timeout=LIMIT,
            cwd=self.folder,
            env=environment(**env),
        )

    def __call__(
        self, *words: str, status: int | None = 0, **env: str
    ) -> Done[str]:
        """Run `python -m fastloop WORDS`; it must end with this status.

        With any, if that is None.
        """
        done = self.python("-m", "fastloop", *words, **env)
        assert status in (None, done.returncode), done.stdout + done.stderr
        return done

    def refused(self, *words: str) -> str:
        """Run a command that must be refused; return its one sentence."""
        done = self(*words, status=2)
        return one_sentence(done.stderr)

    def start(
        self, *words: str, stdin: int | None = None
    ) -> subprocess.Popen[str]:
        """Start a command; the test waits for it."""
        return subprocess.Popen(
            [sys.executable, "-m", "fastloop", *words],
            stdin=stdin,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            cwd=self.folder,
            env=environment(),
        )


def processes_in(folder: Path) -> list[str]:
    """Return the commands of processes whose working folder is this one.

    None without /proc.
    """
    found = []
    if not os.path.exists("/proc/self"):
        return found
    for entry in Path("/proc").iterdir():
        try:
            if entry.name.isdigit() and os.path.samefile(
                entry / "cwd", folder
            ):
                words = (entry / "cmdline").read_bytes()
                found.append(words.replace(b"\0", b" ").decode())
        except OSError:
            continue
    return found


def wait_for(condition: object, what: str) -> None:
    """Wait until the callable is true; fail the test if it never is."""
    end = time.monotonic() + LIMIT / 2
    while not condition():  # type: ignore[operator]
        if time.monotonic() > end:
            pytest.fail(f"{what} did not happen")
        time.sleep(0.01)


def interrupt(process: subprocess.Popen[str], number: int = signal.SIGINT):
    """Signal a command; return its status, its output and its errors."""
    process.send_signal(number)
    out, err = process.communicate(timeout=LIMIT)
    return process.returncode, out, err
