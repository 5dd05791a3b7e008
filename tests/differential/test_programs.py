"""Programs with two ends, and the judges: each fault planted is found."""

from __future__ import annotations

import asyncio
import os
import re
import signal
from contextvars import copy_context

import prog_corpus
import prog_gen
import prog_judge
import prog_pool
import pytest
from prog_signals import SIGNALS
from prog_tape import Program
from prog_world import run_program

import fastloop

pytestmark = [
    pytest.mark.no_refcount,
    # A thread that an earlier test has left, say; a worker has none of them.
    pytest.mark.filterwarnings(
        "ignore:This process .* is multi-threaded:DeprecationWarning"
    ),
]

ECHO = [
    (-1, [("write", 0, 0, 10, 20), ("b", 0, "send", 1000)]),
    (-1, [("task", [("exactly", 0, 100), ("write", 0, 30_000)])]),
    (-1, [("task", [("sendall", 0, 500), ("recv", 0, 10, False)])]),
]
NETS = ["pair", "tcp", "tcp6", "unix"]
KINDS = ["plain", "buffered", "streams", "sock"]
ENDS = [(net, kind) for net in NETS for kind in KINDS]
ENDS += [("pipe", "plain"), ("pty", "plain")]


def check(program: Program) -> None:
    """Run a program in a process of its own; nothing may be wrong."""
    result = prog_pool.run_one(lambda _: prog_judge.judge(program))
    assert not result.kind, f"{result.kind}: {result.text}\n{program!r}"


@pytest.mark.parametrize(("net", "kind"), ENDS)
@pytest.mark.parametrize("side", ["server", "client"])
def test_both_ends_of_each_net_have_all_bytes(net, side, kind):
    check(Program(links=[(net, side, kind, {})], steps=ECHO))


@pytest.mark.parametrize("version", ["1.2", "1.3"])
@pytest.mark.parametrize("side", ["server", "client"])
@pytest.mark.parametrize("disabled", ["", "libssl", "native_tls"])
def test_both_ends_of_tls_have_all_bytes(version, side, disabled):
    conf = {"tls": {"version": version}}
    env = {"FASTLOOP_DISABLE": disabled}
    check(Program([("tcp", side, "streams", conf)], ECHO, env=env))


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


class Doubling(Faulty):
    def spoil(self, data):
        return data + data[-1:]


class TwiceLost(Faulty):
    """Calls connection_lost twice."""

    def _make_socket_transport(self, sock, protocol, *args, **words):
        lost = protocol.connection_lost
        protocol.connection_lost = lambda exc: (lost(exc), lost(exc))
        return super()._make_socket_transport(sock, protocol, *args, **words)


class NeverLost(Faulty):
    """Never calls connection_lost."""

    def _make_socket_transport(self, sock, protocol, *args, **words):
        protocol.connection_lost = lambda exc: None
        return super()._make_socket_transport(sock, protocol, *args, **words)


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
    """Keeps every protocol."""

    def _make_socket_transport(self, sock, protocol, *args, **words):
        KEPT.append(protocol)
        return super()._make_socket_transport(sock, protocol, *args, **words)


class Deaf(asyncio.SelectorEventLoop):
    """Calls no handler of a signal."""

    def _handle_signal(self, number):
        pass


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


class Taking(asyncio.SelectorEventLoop):
    """Leaves no wakeup fd when it is closed."""

    def close(self):
        super().close()
        signal.set_wakeup_fd(-1)


SHORT = [(-1, [("write", 0, 10, 20)])]
KILLED = [(-1, [("on_sig", 0, [])]), (-1, [("kill_sig", 0)])]
LATE = [(-1, [("py_sig", 0, [])]), (-1, [("late_sig", 0)])]
WAKEUP = [(-1, [("gap", "wakeup", 0)])]
PIPE = ("pipe", "server", "plain", {})
SOCK = ("pair", "server", "sock", {})
TWO = [(-1, [("write", 0, 10, 20), ("write", 1, 10)])]
SENDALL = [(-1, [("task", [("write", 0, 10, 20), ("sendall", 1, 10)])])]
SENDFILE = [(-1, [("task", [("write", 0, 10, 20), ("sendfile", 1, 10)])])]
CHAIN = [
    (
        -1,
        [
            ("later", 12, 0, []),
            ("later", 0, 30, [("later", 0, 0, [("later", 0, 0, [])])]),
        ],
    )
]


@pytest.mark.parametrize(
    ("wrong", "more", "steps", "text"),
    [
        (Lossy, [], SHORT, "B got 28 of 30 bytes|wrong bytes"),
        (Doubling, [], SHORT, "wrong bytes"),
        (TwiceLost, [], SHORT, "connection_lost was called twice"),
        (NeverLost, [], SHORT, "end does not end"),
        (Leaking, [], SHORT, "1 descriptors left"),
        (Overtaking, [PIPE], TWO, "overtook"),
        (Overtaking, [SOCK], SENDALL, "overtook"),
        (Overtaking, [SOCK], SENDFILE, "overtook"),
        (Lifo, [], CHAIN, "a timer overtook"),
        (Keeping, [], SHORT, "something keeps"),
        (Deaf, [], KILLED, "a signal's handler was not called"),
        (Masking, [], LATE, "a signal woke no loop"),
        (Taking, [], WAKEUP, "a signal's wakeup fd is not restored"),
    ],
)
def test_a_fault_is_found(wrong, more, steps, text):
    links = [("pair", "server", "plain", {}), *more]

    def run(_):
        return "ran", "; ".join(run_program(wrong, Program(links, steps))[0])

    result = prog_pool.run_one(run)
    assert re.search(text, result.text), result.text


class Silent(asyncio.SelectorEventLoop):
    """Reports nothing."""

    def call_exception_handler(self, context):
        pass


class LastFirst(asyncio.SelectorEventLoop):
    """Puts a callback before those that wait."""

    def call_soon(self, callback, *args, context=None):
        handle = super().call_soon(callback, *args, context=context)
        self._ready.rotate(1)
        return handle


class OneContext(asyncio.SelectorEventLoop):
    """Runs all callbacks in one context."""

    def call_soon(self, callback, *args, context=None):
        context = self.__dict__.setdefault("context", copy_context())
        return super().call_soon(callback, *args, context=context)


CALLS = [("call", "soon", [("var", 1)]), ("call", "soon", [("mark",)])]


@pytest.mark.parametrize(
    ("wrong", "ops"),
    [
        (Silent, [("raise", "boom")]),
        (LastFirst, CALLS),
        (OneContext, CALLS),
    ],
)
def test_a_difference_of_the_traces_is_found(monkeypatch, wrong, ops):
    program = Program([], [(-1, ops)])
    check(program)
    monkeypatch.setattr(fastloop, "new_event_loop", wrong)
    result = prog_pool.run_one(lambda _: prog_judge.judge(program))
    assert result.kind == "trace"


@pytest.mark.parametrize("first", range(7, 67, 15))
def test_drawn_programs_are_valid(first):
    """A few on each version; .ci/run has thousands of them on one."""
    for seed in range(first, first + 15):
        check(prog_gen.draw(seed))


@pytest.mark.parametrize("seed", range(4))
def test_nothing_is_wrong_with_a_changed_program(seed):
    check(prog_corpus.changed(seed))


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
