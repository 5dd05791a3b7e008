"""The processes that a program is measured in, and that serve a web one.

The words of both begin with KIND and REPORT.  At the end REPORT has a dict:
peak memory in bytes, and whether there is a GIL.  REPORT.ran has the time when
a loop of the kind first ran.
"""

import os
import sys
from contextlib import suppress

from fastloop._loop._environment import has_gil

from .run import parse

#: The address that servers listen on while they are measured.
HOST = "127.0.0.1"
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


def _begin(kind: str, report: str) -> None:
    """Have loops of a kind; write REPORT when this process, no child, ends."""
    import atexit

    from .default_loop import set_default_loop

    set_default_loop(kind, f"{report}{RAN}")
    owner = os.getpid()

    def write() -> None:
        if os.getpid() == owner:
            found = {"memory": _peak_memory(), "gil": has_gil()}
            with suppress(OSError), open(report, "w") as file:
                file.write(repr(found))

    atexit.register(write)


def run_program() -> None:
    """Become a program: KIND REPORT PROGRAM..."""
    kind, report, *words = sys.argv[1:]
    program = parse(words)
    program.set_path()
    _begin(kind, report)
    program.become()


def serve() -> None:
    """Serve an application on uvicorn until SIGTERM: KIND REPORT PORT CPU APP.

    CPU is the processor to stay on, or "".
    """
    import asyncio
    import signal

    kind, report, port, cpu, app = sys.argv[1:]
    if cpu:
        os.sched_setaffinity(0, {int(cpu)})
    _begin(kind, report)
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
    sys.path.insert(0, os.getcwd())
    sys.argv[1:] = []
    import uvicorn

    config = uvicorn.Config(
        app, host=HOST, port=int(port), log_level="error", access_log=False
    )
    asyncio.run(uvicorn.Server(config).serve())
