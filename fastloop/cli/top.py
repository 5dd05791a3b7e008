"""`top`: what the loops of a running process do, once or again and again."""

from __future__ import annotations

from .._top import add_arguments, run
from .options import parser_of

__all__ = ["main"]


def main(words: list[str]) -> int:
    """Show the metrics of a process; return 0, or 2 where there are none."""
    parser = parser_of(
        "top", "The process must show them: docs/seeing-inside.md."
    )
    add_arguments(parser)
    return run(parser.parse_args(words))
