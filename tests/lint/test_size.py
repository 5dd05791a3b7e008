"""How many lines the tests have: a number that only a reason may raise."""

from .conftest import TOP

#: Lower it whenever tests are deleted.
MOST_LINES = 38_306
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
