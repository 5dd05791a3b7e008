"""Starts processes, and ends all of them however the command ends.

Each process leads a session of its own, so that Ctrl-C in a terminal reaches
this one alone, which then ends the groups, and so that a process that asks
the terminal for a word gets an error in place of waiting for ever.
"""

import os
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
from typing import Any, Self

from fastloop._loop import _private

from .commands import HOME
from .options import printable

_SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
#: Seconds that processes have to clean up after Ctrl-C.
_LAST = 1.0
#: Bytes at the end of a process's output in which its last lines are looked
#: for, the lines that are shown if it fails, and their length.
_END, _LINES, _COLUMNS = 2**16, 5, 300


def worker_command(
    function: str, *words: object, options: bool = True
) -> list[str]:
    """Return the command that runs MODULE.FUNCTION of this package.

    ``options``: with the options of this process's interpreter.
    Not by -m: `__main__` is to be the user's program.  The current folder is
    not on the path of its imports, and the folder of this package is the last.
    """
    module, _, name = function.partition(".")
    code = (
        "import sys; sys.flags.safe_path or sys.path.pop(0); "
        f"sys.path.append({HOME!r}); "
        f"from fastloop.cli.{module} import {name}; sys.path.pop(); {name}()"
    )
    given = _private.python_options() if options else []
    return [sys.executable, *given, "-c", code, *map(str, words)]


def _last_lines(file: Any) -> list[str]:
    """Return the lines that end a process's output, without empty ones."""
    size = os.fstat(file.fileno()).st_size
    end = os.pread(file.fileno(), _END, max(0, size - _END))
    lines = filter(str.strip, end.decode(errors="replace").splitlines())
    return [printable(line[:_COLUMNS]) for line in lines][-_LINES:]


class Child:
    """A process that was started, and its group.

    Once it has ended, seconds and cpu say how long it took and how many
    seconds of CPU, children included.
    """

    def __init__(self, words: list[str], folder: Path, **more: Any) -> None:
        self._errors = tempfile.TemporaryFile(dir=folder)  # noqa: SIM115
        self._output = tempfile.TemporaryFile(dir=folder)  # noqa: SIM115
        more = {"stdin": subprocess.DEVNULL, "stdout": self._output, **more}
        #: When it was started, by perf_counter().
        self.began = time.perf_counter()
        self._process = subprocess.Popen(
            words,
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

        Past the limit its group is killed.  Popen.wait() with a limit would
        sleep, and so notice the end late.
        """
        before = _cpu_of_children()
        killer = threading.Timer(limit, self.signal, [signal.SIGKILL])
        killer.start()
        try:
            status = self._process.wait()
            self.seconds = time.perf_counter() - self.began
        finally:
            killer.cancel()
            killer.join()
        self.cpu = _cpu_of_children() - before
        return status

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

    def failure(self, name: str) -> str:
        """Return a sentence about how it ended, and the end of its output."""
        status = self._process.returncode
        how = f"ended with status {status}"
        if status < 0:
            how = f"was ended by signal {-status}, {signal.strsignal(-status)}"
        lines = _last_lines(self._errors) or _last_lines(self._output)
        return "\n    ".join([f"{name} {how}{':' * bool(lines)}", *lines])


def _cpu_of_children() -> float:
    found = resource.getrusage(resource.RUSAGE_CHILDREN)
    return found.ru_utime + found.ru_stime


class Processes:
    """The processes of a command; leaving the context ends all of them."""

    def __init__(self) -> None:
        self._temporary = tempfile.TemporaryDirectory(prefix="fastloop-")
        #: A folder for files of the processes, which goes with them.
        self.folder = Path(self._temporary.name)
        self._children: list[Child] = []
        self._handlers: dict[int, Any] = {}
        self._defers = self._interrupted = False

    def __enter__(self) -> Self:
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
