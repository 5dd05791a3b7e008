"""Starts processes, and ends all of them however the command ends.

Each process leads a session of its own, so that Ctrl-C in a terminal reaches
this one alone, which then ends the groups, and so that a process that asks
the terminal for a word gets an error in place of waiting for ever.  Processes
that have left its group are found on Linux, where they become children of
this process once their parent has ended.
"""

from __future__ import annotations

import ctypes
import fcntl
import os
import re
import signal
import stat
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import AbstractContextManager, contextmanager, suppress
from pathlib import Path
from types import FrameType
from typing import Any

from .commands import Refused
from .default_loop import HOME
from .options import printable
from .run import _split

#: Characters of a failed process's last words that are shown.
_MOST_REASON = 300

__all__ = [
    "Child",
    "Processes",
    "catching",
    "python_options",
    "signal_name",
    "worker_command",
]

_SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGQUIT)
#: Seconds that processes have to clean up after Ctrl-C.
_LAST = 1.0
#: Seconds in which processes may end that the one that ended has started.
_GRACE = 0.2
#: Bytes of a process's output that are kept, and those that are too many.
_END, _MOST = 2**16, 2**24
_PR_SET_CHILD_SUBREAPER = 36
_WARNING = r"Warning: |^\s"
#: What to add to a process's last words.
_HINTS = {
    "^EOFError: EOF when reading a line": "; it had no more input",
    r"/dev/tty\b|Errno 25\b|^termios\.error": "; it had no terminal",
}


def signal_name(signum: int) -> str:
    """Return SIGKILL and the like; real-time signals have only numbers."""
    try:
        return signal.Signals(signum).name
    except ValueError:
        return f"signal {signum}"


@contextmanager
def catching(
    numbers: Iterable[int], handler: Callable[[int, Any], object]
) -> Iterator[None]:
    """Handle these signals in the context, except those that are ignored."""
    found = {signum: signal.getsignal(signum) for signum in numbers}
    taken = [n for n in found if found[n] is not signal.SIG_IGN]
    try:
        for signum in taken:
            signal.signal(signum, handler)
        yield
    finally:
        for signum in taken:
            signal.signal(signum, found[signum])


def python_options() -> list[str]:
    """Return the options that this process's interpreter was started with."""
    options, _ = _split(sys.orig_argv[1:], "python")
    # Not -i: it hides the status of what fails.
    return [word for option in options for word in option if word != "-i"]


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
    given = python_options() if options else []
    return [sys.executable, *given, "-c", code, *map(str, words)]


class _Output:
    """A file that a process writes to, of which the end is kept."""

    def __init__(self, folder: Path) -> None:
        self.file = tempfile.TemporaryFile(dir=folder)  # noqa: SIM115
        fcntl.fcntl(self.file, fcntl.F_SETFL, os.O_APPEND)
        self._before = b""

    def trim(self) -> None:
        """Take away what is too much, while the process writes."""
        if os.fstat(self.file.fileno()).st_size > _MOST:
            self._before = self._end()
            self.file.truncate(0)

    def _end(self) -> bytes:
        fd = self.file.fileno()
        return os.pread(fd, _END, max(0, os.fstat(fd).st_size - _END))

    def lines(self) -> list[str]:
        """Return the last lines that are not empty."""
        text = (self._before + self._end()).decode(errors="replace")
        return [line for line in text.splitlines() if line.strip()]


def _reason(output: list[str], errors: list[str], but: str) -> str:
    """Return the line that says best why a process failed; "" without any.

    That is the first failure of pytest or unittest, else the last line.
    """
    failures: list[str] = []
    places = [n for n, line in enumerate(output) if "test summary" in line]
    if places:
        rest = output[places[-1] :]
        failures = [x for x in rest if re.match("(FAILED|ERROR) ", x)]
    elif errors and errors[-1].startswith("FAILED ("):
        failures = [x for x in errors if re.match("(FAIL|ERROR): ", x)]
    if failures:
        more = len(failures) - 1
        return failures[0] + (f" (and {more} more)" if more else "")
    skipped = f"{but}|{_WARNING}" if but else _WARNING
    lines = [line for line in errors if not re.search(skipped, line)]
    return (lines or output or errors or [""])[-1].strip()


class Child:
    """A process that was started, and its group.

    Once it has ended, seconds and cpu say how long it took and how many
    seconds of CPU, children included.  Inside defer_signals() no signal
    raises.  sweep ends the processes that have left the group.
    """

    def __init__(
        self,
        words: list[str],
        folder: Path,
        defer_signals: Callable[[], AbstractContextManager[None]],
        sweep: Callable[[], None],
        **more: Any,
    ) -> None:
        self._defer_signals = defer_signals
        self._sweep = sweep
        self._errors = _Output(folder)
        self._output = _Output(folder)
        more = {"stdout": self._output.file, **more}
        #: When it was started, by perf_counter().
        self.began = time.perf_counter()
        self._process = subprocess.Popen(
            words, stderr=self._errors.file, start_new_session=True, **more
        )
        #: The process, and the group that it leads.
        self.pid = self._process.pid
        self.status: int | None = None
        self.seconds = self.cpu = 0.0
        self.is_late = False

    def wait(self, limit: float | None = None) -> int | None:
        """Wait until it ends; return its status, or None past the limit."""
        if self.status is not None:
            return self.status
        flags = os.WEXITED | os.WNOWAIT
        if limit is None:
            os.waitid(os.P_PID, self.pid, flags)
        else:
            end = time.monotonic() + limit
            while os.waitid(os.P_PID, self.pid, flags | os.WNOHANG) is None:
                if time.monotonic() > end:
                    return None
                time.sleep(0.005)
                self._output.trim()
                self._errors.trim()
        self._note_end()
        return self.status

    def finish(self, limit: float, look: Callable[[], None]) -> None:
        """Wait until it ends; past the limit it is_late, and is ended.

        look is called each second.
        """
        done = threading.Event()
        args = (limit, done, look)
        timer = threading.Thread(target=self._end_late, args=args)
        timer.start()
        try:
            os.waitid(os.P_PID, self.pid, os.WEXITED | os.WNOWAIT)
            self.seconds = time.perf_counter() - self.began
        finally:
            done.set()
            timer.join()
        self._note_end()

    def _end_late(
        self, limit: float, done: threading.Event, look: Callable[[], None]
    ) -> None:
        end = time.monotonic() + limit
        while (left := end - time.monotonic()) > 0:
            if done.wait(min(left, 1.0)):
                return
            self._output.trim()
            self._errors.trim()
            look()
        self.is_late = True
        self.interrupt()
        if not done.wait(_LAST):
            self._signal(signal.SIGKILL)

    def _note_end(self) -> None:
        with self._defer_signals():
            self._sweep()
            self._signal(signal.SIGKILL)  # what it left in its group
            _, status, usage = os.wait4(self.pid, 0)
            self.status = os.waitstatus_to_exitcode(status)
            self._process.returncode = self.status
            self.cpu = usage.ru_utime + usage.ru_stime

    def port(self) -> int | None:
        """Return the first TCP port that its processes listen on."""
        import psutil

        with suppress(psutil.Error):
            leader = psutil.Process(self.pid)
            for one in (leader, *leader.children(recursive=True)):
                # Its name before psutil 6.
                connections = getattr(one, "net_connections", None)
                for found in (connections or one.connections)("tcp"):
                    if found.status == psutil.CONN_LISTEN:
                        port: int = found.laddr.port
                        return port
        return None

    def interrupt(self) -> None:
        """Send its group what Ctrl-C does."""
        if self.status is None:
            self._signal(signal.SIGINT)

    def stop(self) -> None:
        """Ask it to end, and make it after five seconds."""
        if self.wait(0) is None:
            os.kill(self.pid, signal.SIGTERM)
            self.wait(5)
        self.end()

    def end(self) -> None:
        """End it and its group at once."""
        if self.status is None:
            self._signal(signal.SIGKILL)
            self.wait()
        self._errors.file.close()
        self._output.file.close()

    def _signal(self, signum: int) -> None:
        try:
            os.killpg(self.pid, signum)
        except (ProcessLookupError, PermissionError):
            pass  # macOS: PermissionError if all have ended

    def failure(self, name: str, but: str = "") -> str:
        """Return a sentence about how it ended, and why.

        Lines that match the pattern but are not the reason.
        """
        status = self.status or 0
        how = (
            f"was ended by {signal_name(-status)}"
            if status < 0
            else f"ended with status {status}"
        )
        words = _reason(self._output.lines(), self._errors.lines(), but)
        words = printable(words[:_MOST_REASON]) + "…" * (
            len(words) > _MOST_REASON
        )
        for pattern, hint in _HINTS.items():
            if re.search(pattern, words):
                words += hint
        return f"{name} {how}{': ' if words else ''}{words}"


def _place_in_stdin() -> int | None:
    """Return the place that stdin has in its file; None if it is no file."""
    with suppress(OSError):  # a closed stdin is none
        if sys.stdin is not None and stat.S_ISREG(os.fstat(0).st_mode):
            return os.lseek(0, 0, os.SEEK_CUR)
    return None


def _take_orphans(takes: bool) -> None:
    """Have this process become the parent of orphans, where it can."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(_PR_SET_CHILD_SUBREAPER, int(takes), 0, 0, 0)


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
        if os.geteuid() == 0:  # for programs that give up root's rights
            self.folder.chmod(0o711)
        self._children: list[Child] = []
        #: Names of the processes that outlived their parents and were ended.
        self.left: set[str] = set()
        self._before: set[int] = set()
        self._before = {one.pid for one in self._orphans()}
        self._signals_deferred = self._asked = False
        self._place = _place_in_stdin()
        self._catching = catching(_SIGNALS, self._stop)

    def __enter__(self) -> Processes:
        _take_orphans(True)
        self._catching.__enter__()
        return self

    def _stop(self, signum: int, frame: FrameType | None) -> None:
        if not self._signals_deferred:
            raise KeyboardInterrupt
        self._asked = True

    @contextmanager
    def _defer_signals(self) -> Iterator[None]:
        """Hold signals back: they raise when the context ends."""
        before, self._signals_deferred = self._signals_deferred, True
        try:
            yield
        finally:
            self._signals_deferred = before
        if self._asked and not before:
            self._asked = False
            raise KeyboardInterrupt

    def _rewound(self) -> int:
        """Return stdin, put back where it was, or no input if it is no file.

        It shares its place with the process that gave it, such as a shell.
        """
        if self._place is None:
            return subprocess.DEVNULL
        os.lseek(0, self._place, os.SEEK_SET)
        return 0

    def start(self, words: list[str], **more: Any) -> Child:
        """Start a process; no signal comes between that and knowing it."""
        with self._defer_signals():
            try:
                more = {"stdin": self._rewound(), **more}
                child = Child(
                    words,
                    self.folder,
                    self._defer_signals,
                    self._sweep,
                    **more,
                )
            except OSError as exc:
                text = f"cannot start {words[0]}: {exc.strerror}"
                raise Refused(text) from exc
            self._children.append(child)
        return child

    def _orphans(self) -> list[Any]:
        """Return children that this process did not start."""
        import psutil

        own = {one.pid for one in self._children if one.status is None}
        found = psutil.Process().children()
        return [x for x in found if x.pid not in own | self._before]

    def _sweep(self) -> None:
        """End the processes whose parents have ended, after a while."""
        import psutil

        end = time.monotonic() + _GRACE
        while orphans := self._orphans():
            late = time.monotonic() - end
            for one in orphans:
                with suppress(psutil.Error, ChildProcessError):
                    if os.waitpid(one.pid, os.WNOHANG)[0] or late < 0:
                        continue
                    self.left.add(one.name())
                    one.kill()
            if late > _LAST:
                return  # the system does not let one end
            time.sleep(0.005)

    def __exit__(self, *_: object) -> None:
        self._signals_deferred = True
        end = time.monotonic() + _LAST
        living = [one for one in self._children if one.wait(0) is None]
        for child in living:
            child.interrupt()
        for child in living:
            child.wait(max(0.0, end - time.monotonic()))
        for child in self._children:
            child.end()
        self._rewound()
        _take_orphans(False)
        self._catching.__exit__(None, None, None)
        self._temporary.cleanup()
