"""Reads C as far as the lint tests need: no comments, includes."""

import re
from pathlib import Path

TOKEN = re.compile(
    r'//[^\n]*|/\*.*?\*/|"(?:\\.|[^"\\\n])*"|\'(?:\\.|[^\'\\\n])*\'', re.S
)
INCLUDE = re.compile(r'^[ \t]*#[ \t]*include[ \t]*([<"])([^">]+)[">]', re.M)


def without_comments(text: str, strings: bool = False) -> str:
    """TEXT with comments (and strings) blanked, each line in its place."""

    def blank(match: re.Match[str]) -> str:
        found = match[0]
        if found[0] in "\"'" and not strings:
            return found
        return re.sub(r"[^\n]", " ", found)

    return TOKEN.sub(blank, text)


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
