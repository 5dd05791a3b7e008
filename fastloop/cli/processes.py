"""Starts processes, and ends all of them however the command ends.

Each process leads a session of its own, so that Ctrl-C in a terminal reaches
this one alone, which then ends the groups, and so that a process that asks
the terminal for a word gets an error in place of waiting for ever.
"""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from types import FrameType
from typing import Any

from .commands import Refused

__all__ = [
    "Child",
    "Processes",
    "catching",
    "signal_name",
    "worker_command",
]

_SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGQUIT)
#: Seconds that processes have to clean up after Ctrl-C.
_LAST = 1.0


def signal_name(number: int) -> str:
    """Return SIGKILL and the like; real-time signals have only numbers."""
    try:
        return signal.Signals(number).name
    except ValueError:
        return f"signal {number}"


@contextmanager
def catching(
    numbers: Iterable[int], handler: Callable[[int, Any], object]
) -> Iterator[None]:
    """Handle these signals in the context, except those that are ignored."""
    found = {number: signal.getsignal(number) for number in numbers}
    taken = [n for n in found if found[n] is not signal.SIG_IGN]
    try:
        for number in taken:
            signal.signal(number, handler)
        yield
    finally:
        for number in taken:
            signal.signal(number, found[number])


def worker_command(module: str, *words: object) -> list[str]:
    """Return the command that runs main() of a module of this package.

    Not by -m: `__main__` is to be the user's program.
    """
    code = f"from fastloop.cli.{module} import main; main()"
    return [sys.executable, "-c", code, *map(str, words)]


class Child:
    """A process that was started, and its group.

    Once it has ended, seconds and cpu say how long it took and how many
    seconds of CPU, children included.  In the context that held makes no
    signal raises.
    """

    def __init__(
        self,
        words: list[str],
        folder: Path,
        held: Callable[[], AbstractContextManager[None]],
        **more: Any,
    ) -> None:
        self._held = held
        self._errors = tempfile.TemporaryFile(dir=folder)  # noqa: SIM115
        self._began = time.perf_counter()
        self._process = subprocess.Popen(
            words,
            stdin=subprocess.DEVNULL,
            stdout=more.pop("stdout", subprocess.DEVNULL),
            stderr=self._errors,
            start_new_session=True,
            **more,
        )
        #: The process, and the group that it leads.
        self.pid = self._process.pid
        self.status: int | None = None
        self.seconds = self.cpu = 0.0

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
        self.seconds = time.perf_counter() - self._began
        with self._held():
            self._signal(signal.SIGKILL)  # what it left in its group
            _, status, usage = os.wait4(self.pid, 0)
            self.status = os.waitstatus_to_exitcode(status)
            self._process.returncode = self.status
            self.cpu = usage.ru_utime + usage.ru_stime
        return self.status

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
        self._errors.close()

    def _signal(self, number: int) -> None:
        try:
            os.killpg(self.pid, number)
        except (ProcessLookupError, PermissionError):
            pass  # macOS: PermissionError if all have ended

    def failure(self, name: str, but: str = r"^\s*$") -> str:
        """Return a sentence about how it ended, with its last words.

        Lines that match the pattern but are not its last words.
        """
        status = self.status or 0
        how = (
            f"was ended by {signal_name(-status)}"
            if status < 0
            else f"ended with status {status}"
        )
        self._errors.seek(0)
        text = self._errors.read().decode(errors="replace").strip()
        lines = text.splitlines()
        told = [line for line in lines if not re.search(but, line)] or lines
        words = f": {told[-1].strip()}" if told else ""
        return f"{name} {how}{words}"


class Processes:
    """The processes of a command; leaving the context ends all of them."""

    def __init__(self) -> None:
        self._temporary = tempfile.TemporaryDirectory(prefix="fastloop-")
        #: A folder for files of the processes, which goes with them.
        self.folder = Path(self._temporary.name)
        self._children: list[Child] = []
        self._is_held = self._asked = False
        self._catching = catching(_SIGNALS, self._stop)

    def __enter__(self) -> Processes:
        self._catching.__enter__()
        return self

    def _stop(self, number: int, frame: FrameType | None) -> None:
        if not self._is_held:
            raise KeyboardInterrupt
        self._asked = True

    @contextmanager
    def _held(self) -> Iterator[None]:
        """Hold signals back: they raise when the context ends."""
        before, self._is_held = self._is_held, True
        try:
            yield
        finally:
            self._is_held = before
        if self._asked and not before:
            self._asked = False
            raise KeyboardInterrupt

    def start(self, words: list[str], **more: Any) -> Child:
        """Start a process; no signal comes between that and knowing it."""
        with self._held():
            try:
                child = Child(words, self.folder, self._held, **more)
            except OSError as exc:
                text = f"cannot start {words[0]}: {exc.strerror}"
                raise Refused(text) from exc
            self._children.append(child)
        return child

    def __exit__(self, *_: object) -> None:
        self._is_held = True
        end = time.monotonic() + _LAST
        living = [one for one in self._children if one.wait(0) is None]
        for child in living:
            child.interrupt()
        for child in living:
            child.wait(max(0.0, end - time.monotonic()))
        for child in self._children:
            child.end()
        self._catching.__exit__(None, None, None)
        self._temporary.cleanup()
