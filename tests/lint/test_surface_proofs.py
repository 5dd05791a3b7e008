"""No row of the surface without a call: surface_proofs.py is whole and true.

A test counts for a row if it exists, runs on asyncio and on fastloop, is not
skipped for fastloop where the row exists, and calls the row itself, with the
parameter by its name.
"""

from __future__ import annotations

import ast
import functools
import re
import sys
from pathlib import Path

import pytest

from . import surface_proofs as proofs
from . import surface_table as table
from .conftest import TOP

TESTS = TOP / "tests"
#: What a skip may ask: whether it is asyncio, and which Python.
EXCUSES = re.compile(r"loop_kind == 'asyncio'|sys\.version_info|\bPY3\d\d\b")
#: What the conditions of skips may name.
SCOPE = {
    "sys": sys,
    **{f"PY3{n}": sys.version_info >= (3, n) for n in range(11, 20)},
}


class Source:
    """The functions of a test file, and the fixtures they may name."""

    def __init__(self, *texts: str) -> None:
        self.functions: dict[str, ast.FunctionDef | ast.AsyncFunctionDef] = {}
        for text in texts:
            tree = ast.parse(text)
            for node in tree.body:
                if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
                    self.functions[node.name] = node
        # The file's own, of the last text.
        self.marks = [
            ast.unparse(node)
            for node in tree.body
            if isinstance(node, ast.Assign) and "mark." in ast.unparse(node)
        ]

    def both_loops(self, name: str) -> bool:
        """Whether the fixtures of a test lead to that of the two loops."""
        if name == "loop_kind":
            return True
        node = self.functions.get(name)
        return node is not None and any(
            self.both_loops(a.arg) for a in node.args.args if a.arg != name
        )

    def marked(self, name: str) -> list[str]:
        """The marks of a test that skip it, but for a version's sake."""
        node = self.functions[name]
        marks = [ast.unparse(each) for each in node.decorator_list]
        return [
            mark
            for mark in marks + self.marks
            if ("mark.skip" in mark or "mark.xfail" in mark)
            and not EXCUSES.search(mark)
        ]

    def unexcused(self, name: str) -> list[str]:
        """The skips of a test that may be fastloop's."""
        node = self.functions[name]
        found = self.marked(name)
        excused = {
            id(call)
            for each in ast.walk(node)
            if isinstance(each, ast.If)
            and EXCUSES.search(ast.unparse(each.test))
            for call in ast.walk(each)
        }
        for each in ast.walk(node):
            if isinstance(each, ast.Call) and id(each) not in excused:
                if ast.unparse(each.func) in ("pytest.skip", "pytest.xfail"):
                    found.append(ast.unparse(each))
        return found

    def skipped_here(self, name: str) -> bool:
        """Whether the running version is one that a test leaves out."""
        for mark in self.functions[name].decorator_list:
            if "mark.skipif" in ast.unparse(mark):
                assert isinstance(mark, ast.Call)
                condition = ast.Expression(mark.args[0])
                if eval(compile(condition, name, "eval"), SCOPE):
                    return True
        return False

    def called(self, name: str) -> set[str]:
        """`method`, `method(parameter)` and attributes a test names."""
        found = set()
        for each in ast.walk(self.functions[name]):
            if isinstance(each, ast.Attribute):
                found.add(each.attr)
            if isinstance(each, ast.Call):
                method = each.func
                if isinstance(method, ast.Attribute):
                    found |= {f"{method.attr}({k.arg})" for k in each.keywords}
        return found


@functools.cache
def source(path: Path) -> Source:
    """A test file with the fixtures of the folders it is in."""
    names = ("conftest.py", "transport_pairs.py")
    near = [TESTS / names[0], *(path.parent / name for name in names), path]
    near = [each for each in near if each.exists()]
    return Source(*(p.read_text(encoding="utf-8") for p in near))


def found(test: str) -> tuple[Source, str]:
    """Where a test is, and its name."""
    file, _, name = test.partition("::")
    folder = "" if "/" in file else "behaviour/"
    return source(TESTS / f"{folder}{file}.py"), name


def test_every_row_has_a_call():
    claimed = set().union(*proofs.claims().values())
    assert proofs.wanted() - claimed == set(), "rows without a call"
    assert claimed - proofs.wanted() == set(), "calls without a row"


@pytest.mark.parametrize("test", proofs.claims())
def test_the_call_is_there(test):
    where, name = found(test)
    assert name in where.functions
    assert where.both_loops(name)
    assert where.unexcused(name) == []
    rows = {row.partition(".")[2] for row in proofs.claims()[test]}
    assert rows - where.called(name) == set()


def here(row: str) -> bool:
    """Whether the running version has a row, or its parameter."""
    owner, _, rest = row.partition(".")
    name, _, parameter = rest.strip(")").partition("(")
    for each in proofs.OWNERS[owner]:
        if isinstance(each, list):
            if name in map(table.of_this_version, each):
                return True
        elif (parameters := table.rows(each).get(name)) is not None:
            given = [p.partition("=")[0].strip() for p in parameters]
            return not parameter or parameter in given
    return False


def test_the_calls_are_made_on_this_version():
    made = set()
    for test, rows in proofs.claims().items():
        where, name = found(test)
        if not where.skipped_here(name):
            made |= rows
    assert {row for row in proofs.wanted() if here(row)} - made == set()


@pytest.mark.parametrize("what", proofs.others())
def test_what_there_is_besides(what):
    where, name = found(proofs.others()[what])
    assert name in where.functions
    assert where.marked(name) == []


def test_the_checks_can_fail():
    text = """
def loop_kind(): pass
def loop(loop_kind): pass
def test_good(loop):
    if loop_kind == 'asyncio':
        pytest.skip('asyncio is slow')
    loop.call(option=1)
@pytest.mark.skip(reason='x')
def test_skipped(): pass
def test_sometimes(loop):
    if loop_kind == 'fastloop':
        pytest.skip('fails')
@pytest.mark.skipif(sys.version_info > (3,), reason='x')
def test_never(loop): pass
"""
    checked = Source(text)
    assert checked.both_loops("test_good")
    assert checked.unexcused("test_good") == []
    assert {"call", "call(option)"} <= checked.called("test_good")
    assert "call(other)" not in checked.called("test_good")
    assert not checked.both_loops("test_skipped")
    assert len(checked.unexcused("test_skipped")) == 1
    assert len(checked.unexcused("test_sometimes")) == 1
    assert checked.skipped_here("test_never")
    assert not checked.skipped_here("test_good")
