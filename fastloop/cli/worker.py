"""The process that a program is measured in.

    KIND REPORT PROGRAM...

The program becomes `__main__` on that kind of loop.  At its end REPORT has a
dict: peak memory in bytes, and whether there is a GIL.  REPORT.ran has the
time when a loop of the kind first ran.
"""

from __future__ import annotations

import os
import sys
from contextlib import suppress

from .run import parse

__all__ = ["RAN", "has_gil", "main", "report_at_exit"]

#: What the name of the file beside REPORT ends in.
RAN = ".ran"


def _peak_memory() -> int:
    """Return the bytes that were resident at the most; 0: unknown.

    On Linux wait4 is no use: its figure includes the memory of the process
    that forked.
    """
    import re

    try:
        with open("/proc/self/status") as file:
            found = re.search(r"VmHWM:\s+(\d+) kB", file.read())
    except OSError:
        return 0
    return int(found[1]) * 1024 if found else 0


def has_gil() -> bool:
    """Whether this process has a GIL now, which a module may turn on."""
    has: bool = getattr(sys, "_is_gil_enabled", lambda: True)()
    return has


def report_at_exit(path: str) -> None:
    """Have this process, and no child of it, write REPORT when it ends."""
    import atexit

    owner = os.getpid()

    def write() -> None:
        if os.getpid() == owner:
            found = {"memory": _peak_memory(), "gil": has_gil()}
            with suppress(OSError), open(path, "w") as file:
                file.write(repr(found))

    atexit.register(write)


def main() -> None:
    """Become the program; see the module."""
    kind, report, *words = sys.argv[1:]
    program = parse(words)
    program.set_path()
    from .default_loop import set_default_loop

    set_default_loop(kind, f"{report}{RAN}")
    report_at_exit(report)
    program.become()
