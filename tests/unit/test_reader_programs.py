"""Generated programs use a native reader and asyncio's, and see the same.

A program feeds a reader, by hand and by its socket, starts and cancels reads,
and looks at all that asyncio shows.  After each step the two readers have
answered the same, and their transports were paused and resumed alike.

FASTLOOP_READER_PROGRAMS  how many programs; 1000 by default
FASTLOOP_READER_SEED      other programs
"""

from __future__ import annotations

import asyncio
import os
import re
import socket
import sys
from typing import Any

import pytest
from hypothesis import HealthCheck, given, seed, settings
from hypothesis import strategies as st

import fastloop

PROGRAMS = int(os.environ.get("FASTLOOP_READER_PROGRAMS", "1000"))
SEED = int(os.environ.get("FASTLOOP_READER_SEED", "0"))

NUMBER = re.compile(r"0x[0-9a-f]+|Task-\d+")
SEARCHES = ("readuntil", "readline")


class Other(asyncio.StreamReader):
    """A class of the application's own."""


class Transport:
    """A transport that writes down what the reader calls."""

    def __init__(self, behind: Any, log: list[Any]) -> None:
        self.behind = behind
        self.log = log

    def pause_reading(self) -> None:
        self.log.append("pause")
        self.behind.pause_reading()

    def resume_reading(self) -> None:
        self.log.append("resume")
        self.behind.resume_reading()


def described(exc: BaseException | None) -> Any:
    """Return what a program may see of an exception."""
    if exc is None:
        return None
    return (
        type(exc).__name__,
        str(exc),
        getattr(exc, "partial", None),
        getattr(exc, "expected", None),
        getattr(exc, "consumed", None),
        type(exc.__context__).__name__,
        type(exc.__cause__).__name__,
    )


class Machine:
    """Runs a program with one loop's reader."""

    def __init__(self, loop: asyncio.AbstractEventLoop, limit: int) -> None:
        self.loop = loop
        self.log: list[Any] = []
        self.tasks: list[asyncio.Task[Any]] = []
        self.searching: list[bool] = []
        self.kept: list[Any] = []
        near, self.far = socket.socketpair()
        near.setblocking(False)
        self.far.setblocking(False)
        self.reader = asyncio.StreamReader(limit=limit, loop=loop)
        self.protocol = asyncio.StreamReaderProtocol(self.reader, loop=loop)
        loop.set_exception_handler(self.reported)
        self.transport, _ = loop.run_until_complete(
            loop.create_unix_connection(lambda: self.protocol, sock=near)
        )
        self.reader._transport = Transport(self.transport, self.log)

    def reported(self, _: Any, context: dict[str, Any]) -> None:
        message = context["message"]
        if message.startswith("Exception in callback"):
            message = "Exception in callback"
        exc = context.get("exception")
        self.log.append(("report", message, type(exc).__name__))

    def end(self) -> None:
        for task in self.tasks:
            task.cancel()
        self.transport.abort()
        self.far.close()
        self.do_turn(4)
        self.loop.set_exception_handler(None)
        # The protocol's finalizer does so, but GC may finalize the future
        # first and report its exception to a later program's loop.
        closed = self.protocol._get_close_waiter(None)
        if closed.done() and not closed.cancelled():
            closed.exception()

    def run(self, program: list[tuple[Any, ...]]) -> list[Any]:
        for name, *arguments in program:
            try:
                answer = getattr(self, f"do_{name}")(*arguments)
            except Exception as exc:
                answer = described(exc)
            self.log.append((name, answer))
            self.log.append(self.state())
        self.do_turn(3)
        self.log.append([self.outcome(task) for task in self.tasks])
        self.log.append(self.state())
        self.log.append(bytes(self.reader._buffer))
        return self.log

    def state(self) -> Any:
        reader = self.reader
        waiter = reader._waiter
        return (
            reader._paused,
            reader._eof,
            reader._limit,
            None if waiter is None else waiter.done(),
            reader.at_eof(),
            described(reader.exception()),
            self.transport.is_reading(),
            self.transport.is_closing(),
            [self.outcome(task) for task in self.tasks[-2:]],
        )

    @staticmethod
    def outcome(task: asyncio.Task[Any]) -> Any:
        if not task.done():
            return "waits"
        if task.cancelled():
            return "cancelled"
        return described(task.exception()) or task.result()

    # --- whether a read may begin --------------------------------------------

    def search_is_safe(self) -> bool:
        """Whether no task takes bytes between a search's wake-up and its step.

        asyncio goes on where it has searched to, in bytes that moved, and
        misses a separator; a native reader finds it.
        """
        return all(task.done() for task in self.tasks)

    def read_is_safe(self) -> bool:
        return all(
            task.done()
            for task, searches in zip(self.tasks, self.searching, strict=True)
            if searches
        )

    def is_safe(self, method: str) -> bool:
        if method in SEARCHES:
            return self.search_is_safe()
        return self.read_is_safe()

    # --- steps ---------------------------------------------------------------

    def do_turn(self, count: int) -> None:
        for _ in range(count):
            self.loop.call_soon(self.loop.stop)
            self.loop.run_forever()

    def do_start(self, method: str, *arguments: Any) -> Any:
        if not self.is_safe(method):
            return "unsafe"
        coro = getattr(self.reader, method)(*arguments)
        self.tasks.append(self.loop.create_task(coro))
        self.searching.append(method in SEARCHES)
        return None

    def do_now(self, method: str, *arguments: Any) -> Any:
        """Make the first step of a read, and end it there."""
        if not self.is_safe(method):
            return "unsafe"
        coro = getattr(self.reader, method)(*arguments)
        try:
            coro.send(None)
        except StopIteration as exc:
            return exc.value
        coro.close()
        return "waited"

    def do_cancel(self, which: int) -> Any:
        return (
            bool(self.tasks) and self.tasks[which % len(self.tasks)].cancel()
        )

    def do_feed(self, data: bytes, kind: Any) -> None:
        self.reader.feed_data(kind(data))

    def do_send(self, data: bytes, count: int) -> Any:
        try:
            sent = self.far.send(data)
        except OSError as exc:
            return type(exc).__name__
        self.do_turn(count)
        return sent

    def do_feed_eof(self) -> None:
        self.reader.feed_eof()

    def do_send_eof(self) -> None:
        self.far.shutdown(socket.SHUT_WR)

    def do_set_exception(self, exc: type[Exception]) -> None:
        self.reader.set_exception(exc("set"))

    def do_set_limit(self, limit: int) -> Any:
        # A search that goes on looks at the limit only if more has come; one
        # whose reader was downgraded begins anew.
        if not self.read_is_safe():
            return "unsafe"
        self.reader._limit = limit
        return None

    def do_set_class(self, cls: type[asyncio.StreamReader]) -> None:
        self.reader.__class__ = cls

    def do_look(self, what: str) -> Any:
        if what == "empty":
            return not self.reader._buffer
        return sorted(vars(self.reader))

    def do_keep(self) -> None:
        self.kept.append(self.reader._buffer)

    def do_extend(self, data: bytes) -> None:
        self.reader._buffer.extend(data)

    def do_delete(self, size: int) -> Any:
        if not self.read_is_safe():
            return "unsafe"
        del self.reader._buffer[:size]
        return [bytes(buffer) for buffer in self.kept]

    def do_call(self, method: str) -> Any:
        answer = getattr(self.reader, method)()
        if isinstance(answer, BaseException):
            return described(answer)
        # Addresses, and names of tasks, are each loop's own.
        return NUMBER.sub("", answer) if type(answer) is str else answer

    def do_transport(self, method: str) -> Any:
        return getattr(self.transport, method)()


def filled(unit: bytes, size: int) -> bytes:
    return (unit * (size // len(unit) + 1))[:size]


sizes = st.integers(0, 12) | st.sampled_from([30, 1000, 9000, 40_000, 130_000])
data = st.builds(
    filled, st.sampled_from([b"a", b"ab\n", b"\n", b"xy\r\n", b"aba"]), sizes
) | st.sampled_from([b"\n", b"\r", b"\r\n", b"b"])
limits = st.integers(1, 20) | st.sampled_from([1000, 65536, 1 << 20])
separators = st.sampled_from([b"\n", b"\r\n", b"aba", b""])
if sys.version_info >= (3, 13):
    separators |= st.sampled_from(
        [(b"\n", b"\r\n"), (b"aba", b"b"), (), (b"",), (b"y", b"xy\r")]
    )
reads = (
    st.tuples(st.just("read"), sizes)
    | st.tuples(st.just("read"), st.sampled_from([-1, 65536, 100_000]))
    | st.tuples(st.just("readexactly"), st.integers(-1, 30) | sizes)
    | st.tuples(st.just("readuntil"), separators)
    | st.just(("readline",))
)


def step(name: str, *arguments: Any) -> Any:
    return st.tuples(st.just(name), *arguments)


started = reads.map(lambda read: ("start", *read))
fed = step("feed", data, st.sampled_from([bytes, bytearray, memoryview, list]))
sent = step("send", data, st.integers(0, 2))
turned = step("turn", st.integers(1, 2))
often = started | fed | sent | turned | reads.map(lambda r: ("now", *r))
seldom = st.one_of(
    step("cancel", st.integers(0, 3)),
    step("feed_eof"),
    step("send_eof"),
    step("set_exception", st.sampled_from([ValueError, OSError])),
    step("set_limit", limits),
    step("set_class", st.sampled_from([Other, asyncio.StreamReader, int])),
    step("look", st.sampled_from(["empty", "empty", "vars"])),
    step("keep"),
    step("extend", data),
    step("delete", sizes),
    step("call", st.sampled_from(["_maybe_resume_transport", "exception"])),
    step("call", st.sampled_from(["at_eof", "_wakeup_waiter", "__repr__"])),
    step(
        "transport",
        st.sampled_from(["pause_reading", "resume_reading", "close", "abort"]),
    ),
)
programs = st.lists(often | often | often | seldom, min_size=3, max_size=25)


@pytest.fixture(scope="module")
def loops():
    """Return a loop of asyncio's and one of fastloop's."""
    made = asyncio.SelectorEventLoop(), fastloop.new_event_loop()
    yield made
    for loop in made:
        loop.close()


def outcome(loop, limit, program):
    machine = Machine(loop, limit)
    try:
        return machine.run(program)
    finally:
        machine.end()


def test_readers_do_the_same(loops):
    @seed(SEED)
    @settings(
        max_examples=PROGRAMS,
        deadline=None,
        database=None,
        suppress_health_check=list(HealthCheck),
    )
    @given(limits, programs)
    def compare(limit, program):
        theirs, ours = (outcome(loop, limit, program) for loop in loops)
        assert ours == theirs

    compare()
