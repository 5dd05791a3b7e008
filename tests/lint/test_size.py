"""Sizes of C files and of the tests; clang-tidy has those of functions."""

import pytest

from .c_text import opening_comment, read
from .conftest import TOP, c_files, short

MOST_LINES_OF_A_FILE = 700
COLUMNS = 79

#: Of the tests: only a reason may raise it.  Lower it when tests go.
MOST_LINES = 38_160
KINDS = (".py", ".c", ".h", ".toml", ".txt")


def test_the_tests_do_not_grow():
    lines = sum(
        path.read_bytes().count(b"\n")
        for path in (TOP / "tests").rglob("*")
        if path.suffix in KINDS and path.is_file()
    )
    assert lines <= MOST_LINES, (
        f"tests/ has {lines} lines, {lines - MOST_LINES} more than it may: "
        "delete as many, or raise MOST_LINES and say in the commit which "
        "edge, mutant or value the new lines test"
    )


@pytest.mark.parametrize("path", c_files(), ids=short)
def test_file_is_in_shape(path):
    text = read(path)
    lines = text.split("\n")
    wide = [n for n, line in enumerate(lines, 1) if len(line) > COLUMNS]
    assert not wide, f"lines over {COLUMNS} columns: {wide}"
    assert len(lines) <= MOST_LINES_OF_A_FILE
    assert len(opening_comment(text).split()) >= 4, (
        "a file opens with a comment that says what it is for"
    )
