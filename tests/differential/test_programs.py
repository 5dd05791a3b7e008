"""Some programs on each version, and the judges: a fault planted is found."""

from __future__ import annotations

import asyncio
import os
import re
import signal

import prog_corpus
import prog_gen
import prog_judge
import prog_pool
import pytest
from prog_signals import SIGNALS
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


@pytest.mark.parametrize("first", range(7, 67, 15))
def test_drawn_programs_are_valid(first):
    """A few on each version; .ci/run has thousands of them on one."""
    for seed in range(first, first + 15):
        check(prog_gen.draw(seed))


@pytest.mark.parametrize("seed", range(4))
def test_nothing_is_wrong_with_a_changed_program(seed):
    check(prog_corpus.changed(seed))


class Faulty(asyncio.SelectorEventLoop):
    """A loop whose transports write what *spoil* makes of the data."""

    def spoil(self, data):
        return data

    def _make_socket_transport(self, *args, **words):
        transport = super()._make_socket_transport(*args, **words)
        write = transport.write
        transport.write = lambda data: write(self.spoil(bytes(data)))
        return transport


class Lossy(Faulty):
    def spoil(self, data):
        return data[:-1]


class Leaking(Faulty):
    """Leaves a descriptor open for each connection."""

    def _make_socket_transport(self, sock, *args, **words):
        os.dup(sock.fileno())
        return super()._make_socket_transport(sock, *args, **words)


class Overtaking(Faulty):
    """Sends what a callback writes second before the first."""

    def _make_socket_transport(self, *args, **words):
        transport = super()._make_socket_transport(*args, **words)
        write = transport.write
        transport.write = lambda data: self.call_soon(write, bytes(data))
        return transport


class Lifo(asyncio.SelectorEventLoop):
    """Has the latest timer of an iteration come first."""

    def call_later(self, delay, callback, *args, context=None):
        if delay == 0:
            return self.call_soon(callback, *args, context=context)
        return super().call_later(delay, callback, *args, context=context)


KEPT = []


class Keeping(Faulty):
    """Keeps every protocol, and calls none of connection_lost."""

    def _make_socket_transport(self, sock, protocol, *args, **words):
        KEPT.append(protocol)
        protocol.connection_lost = lambda exc: None
        return super()._make_socket_transport(sock, protocol, *args, **words)


class Masking(asyncio.SelectorEventLoop):
    """Has no signal come while it waits."""

    def __init__(self):
        super().__init__()
        select = self._selector.select

        def select_alone(timeout=None):
            signal.pthread_sigmask(signal.SIG_BLOCK, SIGNALS)
            try:
                return select(timeout)
            finally:
                signal.pthread_sigmask(signal.SIG_UNBLOCK, SIGNALS)

        self._selector.select = select_alone


SHORT = [(-1, [("write", 0, 10, 20)])]
LATE = [(-1, [("py_sig", 0, [])]), (-1, [("late_sig", 0)])]
SOCK = ("pair", "server", "sock", {})
SENDALL = [(-1, [("task", [("write", 0, 10, 20), ("sendall", 1, 10)])])]
CHAIN = [("later", 0, 30, [("later", 0, 0, [("later", 0, 0, [])])])]
TIMERS = [(-1, [("later", 12, 0, []), *CHAIN])]


@pytest.mark.parametrize(
    ("wrong", "more", "steps", "text"),
    [
        (Lossy, [], SHORT, "B got 28 of 30 bytes|wrong bytes"),
        (Leaking, [], SHORT, "1 descriptors left"),
        (Overtaking, [SOCK], SENDALL, "overtook"),
        (Lifo, [], TIMERS, "a timer overtook"),
        (Keeping, [], SHORT, "end does not end.*something keeps"),
        (Masking, [], LATE, "a signal woke no loop"),
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
    result = prog_pool.run_one(lambda _: prog_judge.judge(program))
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
