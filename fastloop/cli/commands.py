"""The commands of the command line, how one is refused, and how all print."""

import os

#: Folder that has the package, for children that do not find it themselves.
HOME = os.path.dirname(
    os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
)

#: Columns of the tables and sentences that the commands print.
COLUMNS = 79

#: What `--help` says of each, in its order.
COMMANDS = {
    "run": "run a program on fastloop, unchanged",
    "info": "show versions, limits and the default loop",
    "top": "show what the loops of a running process do",
    "bench": "race a program on asyncio, uvloop and fastloop",
}


class Refused(Exception):
    """A command cannot do what it was asked; the text says why, once."""


def wrapped(text: str, indent: str = "") -> str:
    """Return a sentence in lines; the indent is that of all but the first.

    A word, and what has `backquotes` to be copied, stays in one line.
    """
    import re
    from textwrap import fill

    whole = re.sub("`[^`]*`", lambda found: found[0].replace(" ", "\0"), text)
    lines = fill(
        whole,
        COLUMNS,
        subsequent_indent=indent,
        break_long_words=False,
        break_on_hyphens=False,
    )
    return lines.replace("\0", " ")


def tell(text: str) -> None:
    """Write a sentence of fastloop's own on stderr, and lines that follow."""
    import sys

    first, *rest = f"fastloop: {text}".split("\n")
    print(wrapped(first), *rest, sep="\n", file=sys.stderr, flush=True)
