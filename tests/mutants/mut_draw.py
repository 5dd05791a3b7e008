"""Draws mutants: small changes of a line of C, by a seed.

A change is found by patterns in the text with comments and strings blanked
out.  What does not compile, or compiles to the same object code, is drawn
anew, so a pattern may find more than is C.
"""

from __future__ import annotations

import random
import re
from collections.abc import Iterator
from dataclasses import dataclass

#: A change: its kind, where it begins and ends, and what stands there instead.
Change = tuple[str, int, int, str]

_BLANKED = re.compile(
    r"/\*.*?\*/|//[^\n]*|\"(?:\\.|[^\"\\\n])*\"|'(?:\\.|[^'\\\n])+'"
    r"|^\#(?:[^\n]*\\\n)*[^\n]*",
    re.DOTALL | re.MULTILINE,
)
_BODY = re.compile(r"^\{\n.*?^\}", re.DOTALL | re.MULTILINE)
_STATEMENT = re.compile(r"^ +([^\s{}#;][^;{}]*;) *$", re.MULTILINE)
_COUNT = re.compile(r"Py_(?:X?INCREF|X?DECREF|CLEAR|X?SETREF)\b")
_CONDITION = re.compile(r"\b(if|while) \(")
_LEAVES = re.compile(r"\b(?:return|goto|break|continue)\b[^;]*;\s*$")
_NUMBER = re.compile(r"(?<![\w.])\d+(?![\w.])")
#: Words that others stand for, by kind of change; "": for all others.
_WORDS: dict[str, tuple[str, dict[str, list[str]]]] = {
    "comparison": (
        r"(?<= )(?:[=!<>]=|[<>])(?=\s)",
        {"==": ["!="], "!=": ["=="], "<": ["<=", ">="], ">": [">=", "<="]}
        | {"<=": ["<", ">"], ">=": [">", "<"]},
    ),
    "logic": (r"&&|\|\|", {"&&": ["||"], "||": ["&&"]}),
    "constant": (r"\b(?:true|false)\b", {"true": ["false"], "": ["true"]}),
    "count": (r"\bPy_X?NewRef(?=\()", {"": [""]}),
    "arithmetic": (
        r"(?<= )[-+]=?(?= )|\+\+|--(?!>)",
        {"+": ["-"], "-": ["+"], "+=": ["-="], "-=": ["+="], "++": ["--"]},
    ),
    "return": (
        r"(?<=\breturn )[^;]+(?=;)",
        {"0": ["-1"], "true": ["false"], "": ["0"]},
    ),
}


@dataclass
class Mutant:
    """A change of a file of C."""

    file: str
    line: int
    kind: str
    start: int
    old: str
    new: str

    def apply(self, text: str) -> str:
        """Return the file's text with the change."""
        end = self.start + len(self.old)
        return text[: self.start] + self.new + text[end:]


def blanked(text: str) -> str:
    """Return the text with comments, strings and directives as blanks."""

    def blanks(found: re.Match[str]) -> str:
        return re.sub(r"[^\n]", " ", found[0])

    return _BLANKED.sub(blanks, text)


def closing(text: str, start: int) -> int:
    """Return where the bracket closes that opens at START."""
    opens, depth = text[start], 0
    closes = {"(": ")", "{": "}"}[opens]
    for at in range(start, len(text)):
        depth += (text[at] == opens) - (text[at] == closes)
        if depth == 0:
            return at
    return start


def statements(text: str) -> Iterator[Change]:
    """Drop a statement; those that count references are a kind of theirs."""
    for found in _STATEMENT.finditer(text):
        if not found[1].startswith(("return ", "Py_RETURN_")):
            kind = "count" if _COUNT.match(found[1]) else "statement"
            new = "\n" * found[1].count("\n") + ";"
            yield kind, found.start(1), found.end(1), new


def conditions(text: str) -> Iterator[Change]:
    """Negate a condition; drop the body of a check, which leaves a block."""
    for found in _CONDITION.finditer(text):
        start, end = found.end() - 1, closing(text, found.end() - 1) + 1
        yield "condition", start, end, f"(!{text[start:end]})"
        body = text.find("{", end)
        if found[1] != "if" or body < 0 or text[end:body].strip():
            continue
        inner = text[body + 1 : closing(text, body)]
        if _LEAVES.search(inner):
            new = "\n" * inner.count("\n")
            yield "check", body + 1, body + 1 + len(inner), new


def words(text: str) -> Iterator[Change]:
    """Change a word, or a number by one."""
    for kind, (pattern, others) in _WORDS.items():
        for found in re.finditer(pattern, text):
            for new in others.get(found[0], others.get("", [])):
                if new != found[0]:
                    yield kind, found.start(), found.end(), new
    for found in _NUMBER.finditer(text):
        number = int(found[0])
        for other in {number + 1, max(number - 1, 0)} - {number}:
            yield "constant", found.start(), found.end(), str(other)


def mutants(file: str, text: str) -> list[list[Mutant]]:
    """Return the mutants of each line that is in a function."""
    mask = blanked(text)
    found: dict[int, list[Mutant]] = {}
    for body in _BODY.finditer(mask):
        for changes in (statements, conditions, words):
            for kind, start, end, new in changes(body[0]):
                start, end = start + body.start(), end + body.start()
                line = text.count("\n", 0, start) + 1
                made = Mutant(file, line, kind, start, text[start:end], new)
                found.setdefault(line, []).append(made)
    return [found[line] for line in sorted(found)]


def draw(sources: dict[str, str], seed: int) -> Iterator[Mutant]:
    """Yield mutants: a line at random, then a change of it."""
    chance = random.Random(seed)
    lines: list[list[Mutant]] = []
    for file, text in sorted(sources.items()):
        lines += mutants(file, text)
    while True:
        yield chance.choice(chance.choice(lines))
