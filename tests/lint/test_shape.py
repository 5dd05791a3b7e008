"""Sizes of files and lines; clang-tidy has those of functions."""

import pytest

from .c_text import opening_comment, read
from .conftest import c_files, short

MOST_LINES_OF_A_FILE = 700
COLUMNS = 79


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
