"""Starts processes, and ends all of them however the command ends.

Each process leads a session of its own, so that Ctrl-C in a terminal reaches
this one alone, which then ends the groups, and so that a process that asks
the terminal for a word gets an error in place of waiting for ever.
"""

from __future__ import annotations

import os
import re
import resource
import signal
import subprocess
import sys
import tempfile
import threading
import time
from contextlib import suppress
from pathlib import Path
from types import FrameType
from typing import Any

from fastloop import _private

from .commands import HOME, Refused
from .options import printable

__all__ = [
    "Child",
    "Processes",
    "worker_command",
]

_SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGQUIT)
#: Seconds that processes have to clean up after Ctrl-C.
_LAST = 1.0
#: Bytes at the end of a process's output in which its last words are.
_END = 2**16
#: Characters of a failed process's last words that are shown.
_MOST_REASON = 300
_WARNING = r"Warning: |^\s"


def _signal_name(signum: int) -> str:
    """Return SIGKILL and the like; real-time signals have only numbers."""
    try:
        return signal.Signals(signum).name
    except ValueError:
        return f"signal {signum}"


def worker_command(
    module: str, *words: object, options: bool = True
) -> list[str]:
    """Return the command that runs main() of a module of this package.

    ``options``: with the options of this process's interpreter.
    Not by -m: `__main__` is to be the user's program.  The current folder is
    not on the path of its imports, and the folder of this package is the last.
    """
    code = (
        "import sys; sys.flags.safe_path or sys.path.pop(0); "
        f"sys.path.append({HOME!r}); "
        f"from fastloop.cli.{module} import main; sys.path.pop(); main()"
    )
    given = _private.python_options() if options else []
    return [sys.executable, *given, "-c", code, *map(str, words)]


def _last_lines(file: Any) -> list[str]:
    """Return the lines that end a process's output, without empty ones."""
    size = os.fstat(file.fileno()).st_size
    end = os.pread(file.fileno(), _END, max(0, size - _END))
    text = end.decode(errors="replace")
    return [line for line in text.splitlines() if line.strip()]


def _reason(output: list[str], errors: list[str], but: str) -> str:
    """Return the line that says best why a process failed; "" without any.

    That is the first failure of pytest or unittest, else the last line.
    """
    places = [n for n, line in enumerate(output) if "test summary" in line]
    rest = output[places[-1] :] if places else errors
    failures = [x for x in rest if re.match("(FAILED|FAIL:|ERROR:?) ", x)]
    if places or (errors and errors[-1].startswith("FAILED (")):
        more = f" (and {len(failures) - 1} more)" * (len(failures) > 1)
        if failures:
            return failures[0] + more
    skipped = f"{but}|{_WARNING}" if but else _WARNING
    lines = [line for line in errors if not re.search(skipped, line)]
    return (lines or output or errors or [""])[-1].strip()


class Child:
    """A process that was started, and its group.

    Once it has ended, seconds and cpu say how long it took and how many
    seconds of CPU, children included.
    """

    def __init__(self, words: list[str], folder: Path, **more: Any) -> None:
        self._errors = tempfile.TemporaryFile(dir=folder)  # noqa: SIM115
        self._output = tempfile.TemporaryFile(dir=folder)  # noqa: SIM115
        more = {"stdout": self._output, **more}
        #: When it was started, by perf_counter().
        self.began = time.perf_counter()
        self._process = subprocess.Popen(
            words,
            stdin=subprocess.DEVNULL,
            stderr=self._errors,
            start_new_session=True,
            **more,
        )
        #: The process, and the group that it leads.
        self.pid = self._process.pid
        self.seconds = self.cpu = 0.0

    def wait(self, limit: float) -> int | None:
        """Wait until it ends; return its status, or None past the limit."""
        with suppress(subprocess.TimeoutExpired):
            return self._process.wait(limit)
        return None

    def finish(self, limit: float) -> int:
        """Wait until it ends, note its seconds, and return its status.

        Past the limit it is interrupted, as by Ctrl-C, and then killed.
        """
        before = _cpu_of_children()
        done = threading.Event()
        timer = threading.Thread(target=self._end_late, args=(limit, done))
        timer.start()
        try:
            status = self._process.wait()
            self.seconds = time.perf_counter() - self.began
        finally:
            done.set()
            timer.join()
        self.cpu = _cpu_of_children() - before
        return status

    def _end_late(self, limit: float, done: threading.Event) -> None:
        if not done.wait(limit):
            self.signal(signal.SIGINT)
            if not done.wait(_LAST):
                self.signal(signal.SIGKILL)

    def stop(self) -> None:
        """Ask it to end, and make it after five seconds."""
        if self._process.poll() is None:
            self._process.terminate()
            self.wait(5)
        self.end()

    def end(self) -> None:
        """End it and its group at once; only once, for ids are used again."""
        if self._output.closed:
            return
        self.signal(signal.SIGKILL)
        self._process.wait()
        self._errors.close()
        self._output.close()

    def signal(self, signum: int) -> None:
        """Send its group a signal, also when the process itself has ended."""
        # macOS: PermissionError if all have ended.
        with suppress(ProcessLookupError, PermissionError):
            os.killpg(self.pid, signum)

    def failure(self, name: str, but: str = "") -> str:
        """Return a sentence about how it ended, and why.

        Lines that match the pattern but are not the reason.
        """
        status = self._process.returncode
        how = f"ended with status {status}"
        if status < 0:
            how = f"was ended by {_signal_name(-status)}"
        words = _reason(
            _last_lines(self._output), _last_lines(self._errors), but
        )
        if len(words) > _MOST_REASON:
            words = f"{words[:_MOST_REASON]}…"
        return f"{name} {how}{': ' if words else ''}{printable(words)}"


def _cpu_of_children() -> float:
    found = resource.getrusage(resource.RUSAGE_CHILDREN)
    return found.ru_utime + found.ru_stime


class Processes:
    """The processes of a command; leaving the context ends all of them."""

    def __init__(self) -> None:
        try:
            self._temporary = tempfile.TemporaryDirectory(prefix="fastloop-")
        except OSError as exc:
            text = "no temporary folder can be written: set TMPDIR"
            raise Refused(text) from exc
        #: A folder for files of the processes, which goes with them.
        self.folder = Path(self._temporary.name)
        self._children: list[Child] = []
        self._handlers: dict[int, Any] = {}
        self._defers = self._interrupted = False

    def __enter__(self) -> Processes:
        for signum in _SIGNALS:
            handler = signal.getsignal(signum)
            if handler is not signal.SIG_IGN:
                self._handlers[signum] = handler
                signal.signal(signum, self._interrupt)
        return self

    def _interrupt(self, signum: int, frame: FrameType | None) -> None:
        self._interrupted = True
        if not self._defers:
            raise KeyboardInterrupt

    def start(self, words: list[str], **more: Any) -> Child:
        """Start a process; no signal comes between that and knowing it."""
        self._defers = True
        try:
            child = Child(words, self.folder, **more)
            self._children.append(child)
        except OSError as exc:
            text = f"cannot start {words[0]}: {exc.strerror}"
            raise Refused(text) from exc
        finally:
            self._defers = False
        if self._interrupted:
            raise KeyboardInterrupt
        return child

    def __exit__(self, *_: object) -> None:
        self._defers = True
        living = [one for one in self._children if one.wait(0) is None]
        for child in living:
            child.signal(signal.SIGINT)
        end = time.monotonic() + _LAST
        for child in living:
            child.wait(max(0.0, end - time.monotonic()))
        for child in self._children:
            child.end()
        for signum, handler in self._handlers.items():
            signal.signal(signum, handler)
        self._temporary.cleanup()
