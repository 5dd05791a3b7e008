"""The commands of the command line, and how one of them is refused."""

from __future__ import annotations

__all__ = ["COMMANDS", "Refused"]

#: What `--help` says of each, in its order.
COMMANDS = {
    "run": "run a program on fastloop, unchanged",
    "doctor": "find errors and code that chooses another loop",
    "info": "show versions and the default loop",
    "top": "show what the loops of a running process do",
    "bench": "race a program on each loop that is installed",
    "plot": "draw the charts of what bench --json wrote",
}


class Refused(Exception):
    """A command cannot do what it was asked; the text says why, once."""
