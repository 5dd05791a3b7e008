"""Measures the loop's share of a program's CPU time, by sampling stacks.

asyncio's own loop is Python, so its work can be seen on the stack; that of a
loop in C cannot.  A run on asyncio is stopped each 4 ms of CPU time (SIGPROF),
and the CPU time of the main thread since the last stop is given to what runs:
the loop, if the innermost frame is in asyncio's loop, transports, TLS or
streams, or in what those call (selectors, socket, ssl).  A system call counts
for its caller.
"""

from __future__ import annotations

import asyncio
import os
import selectors
import signal
import socket
import ssl
import time

from fastloop import _private

TYPE_CHECKING = False
if TYPE_CHECKING:
    from types import FrameType

__all__ = ["METHOD", "Sampler"]

METHOD = (
    "The loop's share is that of asyncio's own loop, in a run of its own that "
    "is not among the others: each 4 ms of CPU time the main thread's stack "
    "is looked at, and the time is the loop's if asyncio's loop, transports, "
    "TLS or streams run, the system calls they make included."
)
_EACH_S = 0.004
_PARTS = (
    "base_events",
    "base_subprocess",
    "events",
    "selector_events",
    "sslproto",
    "streams",
    "transports",
    "unix_events",
)


class Sampler:
    """Adds up CPU time; start and stop may alternate."""

    def __init__(self) -> None:
        folder = os.path.dirname(asyncio.__file__)
        self._loop_files = {f"{folder}/{part}.py" for part in _PARTS}
        self._called_files = {
            module.__file__ for module in (selectors, socket, ssl)
        }
        self._last = self._began = 0.0
        self._running = self._seen = False
        self._loop = self._total = 0.0

    def start(self) -> None:
        """Start sampling; call this in the main thread."""
        self._running = True
        self._last = time.thread_time()
        self._began = time.process_time()
        signal.signal(signal.SIGPROF, self._look)
        signal.setitimer(signal.ITIMER_PROF, _EACH_S, _EACH_S)

    def stop(self) -> None:
        """Stop sampling; the sums stay."""
        if self._running:
            signal.setitimer(signal.ITIMER_PROF, 0)
            self._total += time.process_time() - self._began
            self._running = False

    def toggle(self, number: int, frame: FrameType | None) -> None:
        """Start or stop; a handler of signals."""
        (self.stop if self._running else self.start)()

    def report(self) -> dict[str, float]:
        """Stop; return seconds of the loop and of all.

        seen is 0 if no loop was ever found running.
        """
        self.stop()
        return {"loop": self._loop, "total": self._total, "seen": self._seen}

    def _look(self, number: int, frame: FrameType | None) -> None:
        now = time.thread_time()
        self._seen = self._seen or _private.running_loop() is not None
        while frame and frame.f_code.co_filename in self._called_files:
            frame = frame.f_back
        if frame and frame.f_code.co_filename in self._loop_files:
            self._loop += now - self._last
        self._last = now
