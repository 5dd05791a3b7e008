"""Whether workers behind one listening socket take turns."""

import contextlib
import re
from pathlib import Path

EPOLLEXCLUSIVE = 1 << 28


def turns(pid: object = "self") -> int:
    """How many loops of a process take turns with others: they have a socket
    exclusively.  One that has woken late does not, for ten seconds.
    """
    found = 0
    for file in Path(f"/proc/{pid}/fdinfo").iterdir():
        with contextlib.suppress(FileNotFoundError):  # iterdir's own
            for events in re.findall(r"events: +(\w+)", file.read_text()):
                found += bool(int(events, 16) & EPOLLEXCLUSIVE)
    return found
