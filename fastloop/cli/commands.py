"""The commands of the command line, and how one of them is refused."""

from __future__ import annotations

__all__ = ["COMMANDS", "Refused"]

#: What `--help` says of each, in its order.
COMMANDS = {
    "run": "run a program on fastloop, unchanged",
    "doctor": "look for what is wrong or chooses another loop",
    "info": "versions, and which loop a program would get",
    "top": "show what the loops of a running process do",
    "bench": "race a program on each loop that is installed",
    "plot": "draw the charts of what bench --json wrote",
}


class Refused(Exception):
    """A command cannot do what it was asked; the text says why, once."""
