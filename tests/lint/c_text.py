"""Reads C as far as the lint tests need: no comments, functions, includes.

It leans on the layout that clang-format enforces: a function's body opens and
closes with a brace in the first column.
"""

import re
from dataclasses import dataclass
from pathlib import Path

TOKEN = re.compile(
    r'//[^\n]*|/\*.*?\*/|"(?:\\.|[^"\\\n])*"|\'(?:\\.|[^\'\\\n])*\'', re.S
)
NAME_LINE = re.compile(r"^(\w+)\(")
INCLUDE = re.compile(r'^[ \t]*#[ \t]*include[ \t]*([<"])([^">]+)[">]', re.M)


@dataclass(frozen=True)
class Function:
    """A function's definition: its name and the lines it takes."""

    name: str
    first: int
    last: int

    @property
    def lines(self) -> int:
        return self.last - self.first + 1


def without_comments(text: str, strings: bool = False) -> str:
    """TEXT with comments (and strings) blanked, each line in its place."""

    def blank(match: re.Match[str]) -> str:
        found = match[0]
        if found[0] in "\"'" and not strings:
            return found
        return re.sub(r"[^\n]", " ", found)

    return TOKEN.sub(blank, text)


def functions(text: str) -> list[Function]:
    """The functions that TEXT defines."""
    lines = without_comments(text, strings=True).split("\n")
    found = []
    name, first, inside = "", 0, False
    for number, line in enumerate(lines, 1):
        match = NAME_LINE.match(line)
        if not inside and match:
            name, first = match[1], number
        elif line.startswith("{") and name:
            inside = True
        elif line.startswith("}"):
            if inside:
                found.append(Function(name, first, number))
            name, inside = "", False
    return found


def includes(text: str) -> list[tuple[bool, str]]:
    """(whether it is one of ours, the name) of each #include."""
    code = without_comments(text)
    return [(m[1] == '"', m[2]) for m in INCLUDE.finditer(code)]


def opening_comment(text: str) -> str:
    """The words of the comment before the first line of code."""
    match = re.match(r"\s*/\*(.*?)\*/", text, re.S)
    if match is None:
        return ""
    return " ".join(re.sub(r"^\s*\*", "", match[1], flags=re.M).split())


def read(path: Path) -> str:
    return path.read_text(encoding="utf-8")
