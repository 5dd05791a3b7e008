"""Sizes of functions, files and lines."""

import pytest

from .c_text import functions, opening_comment, read
from .conftest import TOP, c_files, short

MOST_LINES_OF_A_FUNCTION = 80
MOST_LINES_OF_A_FILE = 700
COLUMNS = 79


@pytest.mark.parametrize("path", c_files(".c"), ids=short)
def test_functions_are_short(path):
    long = [
        f"{f.name} ({f.lines} lines)"
        for f in functions(read(path))
        if f.lines > MOST_LINES_OF_A_FUNCTION
    ]
    assert not long


def test_the_reader_of_functions_sees_them_all():
    # A reader that found nothing would let everything pass.
    for path in c_files(".c"):
        text = read(path)
        bodies = text.count("\n{\n") + text.startswith("{\n")
        assert len(functions(text)) == bodies, short(path)


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


def test_python_files_are_in_shape():
    for folder in ("fastloop", "tests", "benchmarks", "tools", ".ci"):
        for path in (TOP / folder).rglob("*.py"):
            text = path.read_text(encoding="utf-8")
            assert text.count("\n") <= MOST_LINES_OF_A_FILE, short(path)
            assert not text.strip() or '"""' in text.split("\n\n")[0], (
                f"{short(path)} does not open with why it exists"
            )
