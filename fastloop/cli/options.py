"""What the commands share: errors of one sentence, the libraries of `cli`."""

from __future__ import annotations

import argparse
from importlib.util import find_spec
from typing import NoReturn

from . import COMMANDS, Refused

__all__ = ["Parser", "need", "parser_of"]


class Parser(argparse.ArgumentParser):
    """A parser that raises Refused instead of printing its usage."""

    def error(self, message: str) -> NoReturn:
        """Refuse the words, with argparse's reason."""
        raise Refused(f"{message}; {self.prog} --help tells more")


def parser_of(name: str, text: str) -> Parser:
    """Return the parser of a command; text says more than the list does."""
    return Parser(
        prog=f"python -m fastloop {name}",
        description=f"{COMMANDS[name].capitalize()}. {text}",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )


def need(what: str, *modules: str) -> None:
    """Refuse what cannot be done without these libraries."""
    missing = [name for name in modules if find_spec(name) is None]
    if missing:
        raise Refused(
            f"{what} needs {' and '.join(missing)}: "
            "pip install 'fastloop[cli]'"
        )
