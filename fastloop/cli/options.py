"""Helpers of the commands: parsers, tables, files, optional libraries."""

from __future__ import annotations

import argparse
import os
from collections.abc import Callable, Sequence
from importlib.util import find_spec
from itertools import accumulate
from pathlib import Path
from typing import NoReturn

from .commands import COLUMNS, COMMANDS, Refused, wrapped

__all__ = [
    "Parser",
    "aligned",
    "as_text",
    "is_open_file",
    "listed",
    "need",
    "parser_of",
    "printable",
    "write_file",
]


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


def as_text(value: object) -> str:
    """Return a fact as text; a dict as its items."""
    if isinstance(value, dict):
        return ", ".join(f"{key} {item}" for key, item in value.items())
    return str(value)


def aligned(
    rows: Sequence[Sequence[str]],
    others: Callable[[str, int], str] = str.rjust,
) -> list[str]:
    """Return the lines of a table: the first column left, others right.

    Columns that do not fit become another table below, with the first column
    again.  Where others are left too, the last is text, which is wrapped.
    """
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    if others is str.ljust:
        indent = " " * (sum(widths[:-1]) + 2 * len(widths[:-1]))
        return [
            wrapped(line, indent) if " " in row[-1] else line
            for row in rows
            for line in ["  ".join(map(str.ljust, row, widths)).rstrip()]
        ]
    ends = accumulate(widths, lambda end, width: end + 2 + width)
    fit = max(2, sum(end <= COLUMNS for end in ends))
    lines = [
        "  ".join(
            [row[0].ljust(widths[0]), *map(others, row[1:fit], widths[1:fit])]
        ).rstrip()
        for row in rows
    ]
    if fit < len(widths):
        lines += ["", *aligned([[row[0], *row[fit:]] for row in rows], others)]
    return lines


def need(what: str, *modules: str) -> None:
    """Refuse what cannot be done without these libraries."""
    missing = [name for name in modules if find_spec(name) is None]
    if missing:
        raise Refused(
            f"{what} needs {listed(missing)}: pip install {' '.join(missing)}"
        )


def is_open_file(name: str) -> bool:
    """Whether there is a device, a pipe or, as /dev/stdout, an open file."""
    if os.path.abspath(name).startswith(("/dev/fd/", "/dev/std", "/proc/")):
        return True
    return os.path.exists(name) and not os.path.isfile(name)


def write_file(name: str, content: str | bytes) -> None:
    """Write a whole file or, with Refused, leave it as it was.

    Text becomes UTF-8.  A device, a pipe or an open file gets it at its end.
    """
    if isinstance(content, str):
        content = content.encode("utf-8", "replace")
    whole = Path(name).resolve()
    part = whole.with_name(f".{whole.name}.{os.getpid()}")
    try:
        if is_open_file(name):
            with open(name, "ab") as file:
                file.write(content)
            return
        try:
            part.write_bytes(content)
            os.replace(part, whole)
        finally:
            part.unlink(missing_ok=True)
    except OSError as exc:
        raise Refused(f"cannot write {name}: {exc.strerror}") from exc


def printable(text: str) -> str:
    """Return a process's text without what a terminal obeys."""
    return "".join(
        one if one.isprintable() else ascii(one)[1:-1] for one in text
    )
