"""A test that is skipped, or expected to fail, says why."""

import ast

from .conftest import TOP, short


def named(node: ast.expr) -> str:
    """The dotted name of what is called or marked."""
    if isinstance(node, ast.Attribute):
        return f"{named(node.value)}.{node.attr}"
    return node.id if isinstance(node, ast.Name) else ""


def unexplained(tree: ast.AST) -> list[int]:
    lines = []
    called = {
        id(node.func) for node in ast.walk(tree) if isinstance(node, ast.Call)
    }
    for node in ast.walk(tree):
        if isinstance(node, ast.Call):
            name = named(node.func)
            reason = {k.arg for k in node.keywords} & {"reason", "msg"}
            marks = ("mark.skip", "mark.skipif", "mark.xfail")
            if name.endswith(marks) and not reason:
                lines.append(node.lineno)
            if name in ("pytest.skip", "pytest.xfail") and not (
                reason or node.args
            ):
                lines.append(node.lineno)
            if name == "pytest.importorskip" and not node.args:
                lines.append(node.lineno)
        elif isinstance(node, ast.Attribute) and id(node) not in called:
            if named(node) in ("pytest.mark.skip", "pytest.mark.xfail"):
                lines.append(node.lineno)
    return lines


def test_skips_are_explained():
    files = sorted((TOP / "tests").rglob("*.py"))
    assert len(files) > 5
    bad = [
        f"{short(path)}:{line}"
        for path in files
        for line in unexplained(ast.parse(path.read_text(encoding="utf-8")))
    ]
    assert not bad


def test_the_check_can_fail():
    text = "import pytest\n@pytest.mark.skip\ndef f(): pytest.skip()\n"
    assert sorted(unexplained(ast.parse(text))) == [2, 3]
