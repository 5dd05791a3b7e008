"""Starts processes, and leaves none behind whatever ends the command.

Each process leads a group of its own, so that Ctrl-C in a terminal reaches
this one alone, which then ends the groups.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from types import FrameType
from typing import Any

from . import Refused

__all__ = ["Child", "Processes", "worker_command"]

_SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


def worker_command(module: str, *words: object) -> list[str]:
    """Return the command that runs main() of a module of this package.

    Not by -m: `__main__` is to be the user's program.
    """
    code = f"from fastloop.cli.{module} import main; main()"
    return [sys.executable, "-c", code, *map(str, words)]


class Child:
    """A process that was started, and its group.

    Once it has ended, seconds and cpu say how long it took and how many
    seconds of CPU, children included.
    """

    def __init__(self, words: list[str], folder: Path, **more: Any) -> None:
        self._errors = tempfile.TemporaryFile(dir=folder)  # noqa: SIM115
        self._began = time.perf_counter()
        self._process = subprocess.Popen(
            words,
            stdin=subprocess.DEVNULL,
            stdout=more.pop("stdout", subprocess.DEVNULL),
            stderr=self._errors,
            process_group=0,
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
        self._kill()  # what it left in its group
        _, status, usage = os.wait4(self.pid, 0)
        self.status = os.waitstatus_to_exitcode(status)
        self._process.returncode = self.status
        self.cpu = usage.ru_utime + usage.ru_stime
        return self.status

    def stop(self) -> None:
        """Ask it to end, and make it after five seconds."""
        if self.wait(0) is None:
            os.kill(self.pid, signal.SIGTERM)
            self.wait(5)
        self.end()

    def end(self) -> None:
        """End it and its group at once."""
        if self.status is None:
            self._kill()
            self.wait()
        self._errors.close()

    def _kill(self) -> None:
        try:
            os.killpg(self.pid, signal.SIGKILL)
        except (ProcessLookupError, PermissionError):
            pass  # macOS: PermissionError if all have ended

    def failure(self, name: str) -> str:
        """Return a sentence about how it ended, with its last words."""
        status = self.status or 0
        how = (
            f"was ended by {signal.Signals(-status).name}"
            if status < 0
            else f"ended with status {status}"
        )
        self._errors.seek(0)
        text = self._errors.read().decode(errors="replace").strip()
        words = f": {text.splitlines()[-1].strip()}" if text else ""
        return f"{name} {how}{words}"


class Processes:
    """The processes of a command; leaving the context ends all of them."""

    def __init__(self) -> None:
        self._temporary = tempfile.TemporaryDirectory(prefix="fastloop-")
        #: A folder for files of the processes, which goes with them.
        self.folder = Path(self._temporary.name)
        self._children: list[Child] = []
        self._held = self._asked = False
        self._found: dict[int, Any] = {}

    def __enter__(self) -> Processes:
        for number in _SIGNALS:
            if signal.getsignal(number) is not signal.SIG_IGN:
                self._found[number] = signal.signal(number, self._stop)
        return self

    def _stop(self, number: int, frame: FrameType | None) -> None:
        self._asked = True
        if not self._held:
            raise KeyboardInterrupt

    def start(self, words: list[str], **more: Any) -> Child:
        """Start a process; no signal comes between that and knowing it."""
        self._held = True
        try:
            child = Child(words, self.folder, **more)
            self._children.append(child)
        except OSError as exc:
            raise Refused(f"cannot start {words[0]}: {exc.strerror}") from exc
        finally:
            self._held = False
        if self._asked:
            raise KeyboardInterrupt
        return child

    def __exit__(self, *_: object) -> None:
        self._held = True
        for child in self._children:
            child.end()
        for number, handler in self._found.items():
            signal.signal(number, handler)
        self._temporary.cleanup()
