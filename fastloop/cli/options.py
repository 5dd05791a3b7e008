"""Helpers of the commands: parsers, tables, texts."""

import argparse
from collections.abc import Sequence
from itertools import accumulate
from typing import NoReturn

from .commands import COLUMNS, COMMANDS, Refused, wrapped


class Parser(argparse.ArgumentParser):
    """A parser that raises Refused instead of printing its usage."""

    def error(self, message: str) -> NoReturn:
        """Refuse the words, with argparse's reason."""
        raise Refused(f"{message}; see {self.prog} --help")


def parser_of(name: str, text: str) -> Parser:
    """Return the parser of a command; text says more than the list does."""
    about = f"{COMMANDS[name].capitalize()}. {text}"
    return Parser(
        prog=f"python -m fastloop {name}",
        description="\n".join(map(wrapped, about.split("\n"))),
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )


def listed(names: Sequence[str]) -> str:
    """Return names as a sentence has them: a, b and c."""
    *most, last = names
    return f"{', '.join(most)} and {last}" if most else last


def aligned(rows: Sequence[Sequence[str]], most: float = COLUMNS) -> list[str]:
    """Return the lines of a table: the first column left, others right.

    Columns that do not fit become another table below, with the first column
    again.
    """
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    ends = accumulate(widths, lambda end, width: end + 2 + width)
    fit = max(2, sum(end <= most for end in ends))
    lines = [
        "  ".join(
            [row[0].ljust(widths[0]), *map(str.rjust, row[1:fit], widths[1:])]
        ).rstrip()
        for row in rows
    ]
    if fit < len(widths):
        lines += ["", *aligned([[row[0], *row[fit:]] for row in rows], most)]
    return lines


def printable(text: str) -> str:
    """Return a process's text without what a terminal obeys."""
    return "".join(
        one if one.isprintable() else ascii(one)[1:-1] for one in text
    )
