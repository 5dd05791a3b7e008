"""Some programs on each version, and the judges: a fault planted is found."""

from __future__ import annotations

import asyncio
import os
import re
import sys

import prog_gen
import prog_judge
import prog_pool
import pytest
from prog_tape import Program
from prog_world import run_program
from programs import FAILING

import fastloop

pytestmark = [
    pytest.mark.no_refcount,
    # A thread that an earlier test has left, say; a worker has none of them.
    pytest.mark.filterwarnings(
        "ignore:This process .* is multi-threaded:DeprecationWarning"
    ),
]


def check(program: Program) -> None:
    """Run a program in a process of its own; nothing may fail a run."""
    result = prog_pool.run_one(lambda _: prog_judge.judge(program))
    text = f"{result.kind}: {result.text}\n{program!r}"
    assert result.kind not in FAILING, text


@pytest.mark.skipif(
    (3, 12) <= sys.version_info < (3, 12, 9)
    or sys.version_info[:3] == (3, 13, 0),
    reason="asyncio's writelines() pauses no protocol",
)
@pytest.mark.parametrize("first", range(7, 37, 15))
def test_drawn_programs_are_valid(first):
    """A few on each version; .ci/run has thousands of them on one."""
    for seed in range(first, first + 15):
        check(prog_gen.draw(seed))


class Lossy(asyncio.SelectorEventLoop):
    """Sends all but the last byte of what is written."""

    def _make_socket_transport(self, *args, **words):
        transport = super()._make_socket_transport(*args, **words)
        write = transport.write
        transport.write = lambda data: write(bytes(data)[:-1])
        return transport


class Leaking(asyncio.SelectorEventLoop):
    """Leaves a descriptor open for each connection."""

    def _make_socket_transport(self, sock, *args, **words):
        os.dup(sock.fileno())
        return super()._make_socket_transport(sock, *args, **words)


class Overtaking(asyncio.SelectorEventLoop):
    """Sends what a callback writes second before the first."""

    def _make_socket_transport(self, *args, **words):
        transport = super()._make_socket_transport(*args, **words)
        write = transport.write
        transport.write = lambda data: self.call_soon(write, bytes(data))
        return transport


KEPT = []


class Keeping(asyncio.SelectorEventLoop):
    """Keeps every protocol, and calls none of connection_lost."""

    def _make_socket_transport(self, sock, protocol, *args, **words):
        KEPT.append(protocol)
        protocol.connection_lost = lambda exc: None
        return super()._make_socket_transport(sock, protocol, *args, **words)


SHORT = [(-1, [("write", 0, 10, 20)])]
SOCK = ("pair", "server", "sock", {})
SENDALL = [(-1, [("task", [("write", 0, 10, 20), ("sendall", 1, 10)])])]


@pytest.mark.parametrize(
    ("wrong", "more", "steps", "text"),
    [
        (Lossy, [], SHORT, "B got 28 of 30 bytes|wrong bytes"),
        (Leaking, [], SHORT, "1 descriptors left"),
        (Overtaking, [SOCK], SENDALL, "overtook"),
        (Keeping, [], SHORT, "end does not end.*something keeps"),
    ],
)
def test_a_fault_is_found(wrong, more, steps, text):
    links = [("pair", "server", "plain", {}), *more]

    def run(_):
        return "ran", "; ".join(run_program(wrong, Program(links, steps))[0])

    result = prog_pool.run_one(run)
    assert re.search(text, result.text), result.text


class LastFirst(asyncio.SelectorEventLoop):
    """Puts a callback before those that wait."""

    def call_soon(self, callback, *args, context=None):
        handle = super().call_soon(callback, *args, context=context)
        self._ready.rotate(1)
        return handle


def test_a_difference_of_the_traces_is_found(monkeypatch):
    calls = [("call", "soon", [("var", 1)]), ("call", "soon", [("mark",)])]
    program = Program([], [(-1, calls)])
    check(program)
    monkeypatch.setattr(fastloop, "new_event_loop", LastFirst)
    result = prog_pool.run_one(lambda _: prog_judge.judge(program, True))
    assert result.kind == "trace"


def test_a_crash_is_its_programs():
    def run(seed):
        if seed == 5:
            os.write(2, b"Fatal error\n" + b"line\n" * 5000 + b"the end\n")
            os.abort()
        return "", ""

    results = list(prog_pool.run_all(iter(range(9)), run, 2))
    assert sorted(result.seed for result in results) == list(range(9))
    assert [r.seed for r in results if r.kind == "crash"] == [5]
    text = next(result.text for result in results if result.kind)
    assert text.startswith("SIGABRT\nFatal error") and "the end" in text
