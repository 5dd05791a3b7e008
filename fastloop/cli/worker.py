"""The process that a program is measured in.

    KIND MODE REPORT PROGRAM...

The program becomes `__main__` on that kind of loop.  MODE is `time`, or
`sample` to look which share is the loop's.  At its end REPORT has a dict: peak
memory in bytes, whether there is a GIL, and what the sampler saw.  REPORT.made
has words once asyncio's default has made a loop.  A program that has given up
its rights may write neither.
"""

from __future__ import annotations

import os
import sys
from contextlib import suppress

from .become import become, set_path
from .run import parse

__all__ = [
    "MADE",
    "SERVES",
    "has_gil",
    "main",
    "peak_memory",
    "report_at_exit",
]

TYPE_CHECKING = False
if TYPE_CHECKING:
    from .sample import Sampler

#: What the names of files beside REPORT end in: whether there was a loop, and
#: what serves an application.
MADE, SERVES = ".made", ".server"


def peak_memory(pid: int | str = "self") -> int:
    """Return the bytes that a process had resident at its most; 0: unknown.

    On Linux wait4 is no use: its figure includes the memory of the process
    that forked.
    """
    import re

    try:
        with open(f"/proc/{pid}/status") as file:
            found = re.search(r"VmHWM:\s+(\d+) kB", file.read())
    except OSError:
        return 0
    return int(found[1]) * 1024 if found else 0


def has_gil() -> bool:
    """Whether this process has a GIL now, which a module may turn on."""
    has: bool = getattr(sys, "_is_gil_enabled", lambda: True)()
    return has


def report_at_exit(path: str, sampler: Sampler | None) -> None:
    """Have this process, and no child of it, write REPORT when it ends."""
    import atexit

    owner = os.getpid()

    def write() -> None:
        if os.getpid() != owner:
            return
        found: dict[str, object] = {"memory": peak_memory(), "gil": has_gil()}
        if sampler is not None:
            found |= sampler.report()
        with suppress(OSError), open(path, "w") as file:
            file.write(repr(found))

    atexit.register(write)


def main() -> None:
    """Become the program; see the module."""
    kind, mode, report, *words = sys.argv[1:]
    program = parse(words)
    set_path(program)
    from .default_loop import Counted, set_default_loop

    set_default_loop(kind, Counted(kind, f"{report}{MADE}"))
    sampler = None
    if mode == "sample":
        from .sample import Sampler

        sampler = Sampler()
    report_at_exit(report, sampler)
    if sampler is not None:
        sampler.start()
    become(program)
