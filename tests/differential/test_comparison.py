"""Programs that once differed, and the comparison itself.

Each difference has a plain test of its own too, named here.
"""

from __future__ import annotations

import asyncio

import diff_compare
import pytest
from diff_clock import Clock
from diff_compare import Program, check, compare, judge

pytestmark = pytest.mark.no_refcount


def test_a_write_overtook_held_writes():
    """test_held_writes: test_a_large_write_does_not_overtake_small_ones"""
    writes = [
        ("soon", [("write", 1000), ("write", 2)]),
        ("soon", [("write", 4000)]),
    ]
    check(
        Program(
            world="stream",
            steps=[
                [
                    (
                        "pair",
                        ("plain", [("made", writes)], False),
                        ("buffered", [], False),
                    )
                ]
            ],
        )
    )


def test_what_the_kernel_orders_is_no_difference():
    """A close and a write race in the turns in which a connection opens."""
    program = Program(
        world="stream",
        steps=[
            [
                (
                    "connect",
                    5,
                    ("plain", [("made", [("write", 100)])], False),
                    ("buffered", [("made", [("close",)])], False),
                )
            ]
        ],
    )
    assert judge(program, 4)[0] in ("same", "again", "turns")


class LastFirst(asyncio.SelectorEventLoop):
    """A loop that puts a callback before those that wait."""

    def call_soon(self, callback, *args, context=None):
        handle = super().call_soon(callback, *args, context=context)
        self._ready.rotate(1)
        return handle


class Deaf(asyncio.SelectorEventLoop):
    """A loop that tells its exception handler nothing."""

    def call_exception_handler(self, context):
        pass


PROGRAM = Program(
    world="loop",
    steps=[
        [
            ("soon", [("var", 1), ("log",)]),
            ("soon", [("raise", "boom")]),
            ("log",),
        ]
    ],
)


@pytest.mark.parametrize("wrong", [LastFirst, Deaf])
def test_a_loop_that_differs_is_found_out(monkeypatch, wrong):
    factory_of = diff_compare.factory_of

    def factory(kind):
        return wrong if kind == "fastloop" else factory_of(kind)

    assert not compare(PROGRAM)
    monkeypatch.setattr(diff_compare, "factory_of", factory)
    assert compare(PROGRAM)
    with pytest.raises(AssertionError, match=r"world='loop'"):
        check(PROGRAM)


def test_programs_are_made_smaller(monkeypatch):
    """What a difference does not need is not printed."""

    def compare(program, tries=0):
        return "differs" if ("log",) in program.steps[-1] else ""

    monkeypatch.setattr(diff_compare, "compare", compare)
    least = diff_compare.reduce(PROGRAM, float("inf"))
    assert least.steps == [[("log",)]]


def test_allowed_differences_have_reasons():
    for rule in diff_compare.RULES:
        assert len(rule.name) > 10
        assert len(rule.reason) > 20


@pytest.mark.parametrize("busy", [False, True])
def test_a_run_is_void_if_a_slot_finds_the_last_one_busy(busy):
    loop = asyncio.SelectorEventLoop()
    clock = Clock(loop)
    loop.call_at(clock.when(clock.take(1)), loop.stop)

    def chain():
        if busy:
            loop.call_soon(chain)

    loop.call_soon(chain)
    loop.run_forever()
    loop.close()
    assert clock.late == busy


def test_a_run_is_void_if_a_delay_began_late():
    loop = asyncio.SelectorEventLoop()
    clock = Clock(loop)
    clock.delay(1)
    while loop.time() < clock.when(1):
        pass
    loop.call_soon(loop.stop)
    loop.run_forever()
    loop.close()
    assert clock.late


@pytest.mark.parametrize(
    ("theirs", "ours", "verdict"),
    [
        ("a", "a", "same"),
        ("aaaab", "bbbbb", "again"),
        ("abbbb", "bbbba", "again"),
        ("aaaaa", "baaaa", "rare"),
        ("aaaaa", "aabab", "same"),
        ("ccccc", "aabac", "different"),
        ("aaaaa", "bbbbb", "different"),
        ("-----", "-----", "void"),
        ("a-aaa", "bbaaa", "rare"),
    ],
)
def test_what_differs_again_and_again_is_different(
    monkeypatch, theirs, ours, verdict
):
    runs = {"asyncio": iter(theirs), "fastloop": iter(ours)}

    def run_valid(kind, program, patience):
        trace = next(runs[kind])
        return None if trace == "-" else {"main": [trace]}

    monkeypatch.setattr(diff_compare, "run_valid", run_valid)
    monkeypatch.setattr(diff_compare, "PATTERNS", ())
    got, text = judge(PROGRAM, 5)
    assert got == verdict
    assert bool(text) == (verdict in ("rare", "different"))
