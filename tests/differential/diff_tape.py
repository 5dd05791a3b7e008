"""A grammar over bytes: cheap to draw from, which is what many programs need.

Hypothesis draws one string of bytes for a program, the tape; the rules below
read it a byte at a time, and at its end find only zeros.  A program of some
hundred choices so costs Hypothesis one draw.  Zero is always the simplest
choice.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

#: Bytes of a tape; a large program takes about half.
TAPE_BYTES = 400


class Tape:
    """Bytes that decide."""

    def __init__(self, data: bytes) -> None:
        self.data = iter(data)

    def pick(self, count: int) -> int:
        """Return a number below *count*, which is at most 256."""
        return next(self.data, 0) * count >> 8


Rule = Callable[[Tape], Any]


def just(value: Any) -> Rule:
    """Return the rule of one value."""
    return lambda tape: value


def integers(low: int, high: int) -> Rule:
    """Return the rule of the whole numbers from *low* to *high*."""
    return lambda tape: low + tape.pick(high - low + 1)


def booleans() -> Rule:
    """Return the rule of False and True."""
    return lambda tape: bool(tape.pick(2))


def sampled(values: Sequence[Any]) -> Rule:
    """Return the rule of some values."""
    return lambda tape: values[tape.pick(len(values))]


def tuples(*rules: Rule) -> Rule:
    """Return the rule of tuples, a rule for each place."""
    return lambda tape: tuple([rule(tape) for rule in rules])


def op(name: str, *rules: Rule) -> Rule:
    """Return the rule of one operation."""
    return tuples(just(name), *rules)


def lists(rule: Rule, low: int = 0, high: int = 3) -> Rule:
    """Return the rule of lists of *low* to *high* items."""
    return lambda tape: [
        rule(tape) for _ in range(low + tape.pick(high - low + 1))
    ]


def weighted(*rows: tuple[int, Rule]) -> Rule:
    """Return the rule that takes each row as often as its weight says."""
    rules = [rule for weight, rule in rows for _ in range(weight)]
    return lambda tape: rules[tape.pick(len(rules))](tape)


def nested(
    leaf: Rule, more: Callable[[Rule], Rule], depth: int, often: int = 40
) -> Rule:
    """Return the rule of *leaf*, or *more* of itself, *often* in 100 times."""
    if depth == 0:
        return leaf
    inner = more(nested(leaf, more, depth - 1, often))
    return lambda tape: (
        inner(tape) if tape.pick(100) >= 100 - often else leaf(tape)
    )
