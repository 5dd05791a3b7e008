"""StreamReader's store and searches, against a model of them.

The reader is of a real connection, so that it is a native one; bytes come by
the socket, or by feed_data().  After each step the loop runs until nothing is
left to do, and then the reader, the transport and the model agree.
"""

from __future__ import annotations

import asyncio
import copy
import fcntl
import os
import socket
import struct
import termios
from typing import Any

from harness import Run, Tape, check, note, one_iteration

import fastloop
import fastloop.streams

INSTRUMENTED = ["fastloop.streams"]
MOST_BYTES = 512
LIMITS = (1, 2, 3, 7, 16, 64, 1000, 65536)
ALPHABET = b"ab\nc"
#: Some of them make it a plain reader.
LOOKS = (repr, vars, lambda reader: len(reader._buffer), copy.copy)
#: More than this may come in two parts.
ONE_READ = 60_000
OVERRUN = asyncio.LimitOverrunError
INCOMPLETE = asyncio.IncompleteReadError


class Model:
    """asyncio.StreamReader: what it holds, and whether it has paused."""

    def __init__(self, limit: int) -> None:
        self.limit, self.held, self.wire, self.blocks = limit, b"", b"", b""
        self.eof = self.wire_eof = self.paused = False
        self.failed: Exception | None = None

    def feed(self, data: bytes) -> None:
        self.held += data
        self.paused |= bool(data) and len(self.held) > 2 * self.limit

    def take(self, size: int) -> bytes:
        taken, self.held = self.held[:size], self.held[size:]
        self.paused &= len(self.held) > self.limit
        return taken

    def until(self, separator: bytes) -> Any:
        at = self.held.find(separator)
        unsure = len(self.held) + 1 - len(separator)
        if at > self.limit:
            return OVERRUN("", at)
        if at >= 0:
            return self.take(at + len(separator))
        if unsure > self.limit and len(self.held) >= len(separator):
            return OVERRUN("", unsure)
        if self.eof:
            return INCOMPLETE(self.drop(), None)
        return None

    def drop(self) -> bytes:
        held, self.held = self.held, b""
        return held

    def answer(self, method: str, what: Any) -> Any:
        """Return a read's result or exception, or None to wait."""
        if (method, what) == ("readuntil", b"") or (
            method == "readexactly" and what < 0
        ):
            return ValueError()
        if self.failed:
            return self.failed
        if method == "readuntil":
            return self.until(what)
        if method == "readline":
            got = self.until(b"\n")
            if isinstance(got, OVERRUN):
                found = self.held.startswith(b"\n", got.consumed)
                self.take(got.consumed + 1 if found else len(self.held))
                return ValueError()
            return got.partial if isinstance(got, INCOMPLETE) else got
        if what == 0:
            return b""
        if what < 0:
            self.blocks += self.take(len(self.held))
            return self.blocks if self.eof else None
        if method == "read":
            return self.take(what) if self.held or self.eof else None
        if len(self.held) >= what:
            return self.take(what)
        return INCOMPLETE(self.drop(), what) if self.eof else None


def same(task: asyncio.Task[bytes], wanted: Any) -> bool:
    """Whether a task has ended as the model says."""
    exc = task.exception()
    if exc is None:
        return isinstance(wanted, bytes) and task.result() == wanted
    if isinstance(exc, OVERRUN | INCOMPLETE) and type(exc) is type(wanted):
        return all(
            getattr(exc, name, 0) == getattr(wanted, name, 0)
            for name in ("consumed", "partial", "expected")
        )
    return exc is wanted or type(exc) is type(wanted) is ValueError


def text(tape: Tape) -> bytes:
    """Return bytes of few kinds, so that separators are found in them."""
    if tape.byte() % 2:
        return bytes(ALPHABET[byte % 4] for byte in tape.bytes())
    return (tape.bytes(3) or b"a") * (tape.size() % 40000)


class Case:
    """A connection's reader, its model, and at most one task that reads."""

    def __init__(self, loop: Any, tape: Tape) -> None:
        self.loop, self.tape = loop, tape
        self.model = Model(tape.pick(LIMITS))
        self.near, self.peer = socket.socketpair()
        self.peer.setblocking(False)
        self.reader = asyncio.StreamReader(self.model.limit, loop)
        protocol = asyncio.StreamReaderProtocol(self.reader, loop=loop)
        self.transport, _ = loop.run_until_complete(
            loop.create_connection(lambda: protocol, sock=self.near)
        )
        note("limit", self.model.limit)
        self.pending: tuple[Any, str, Any] | None = None
        # Whether asyncio's own code reads: a search goes on there where it
        # stopped, also after another read has taken bytes from under it.
        self.plain = bool(os.environ.get("FUZZ_ON_ASYNCIO"))

    def settle(self) -> None:
        for count in range(1000):
            one_iteration(self.loop)
            left = fcntl.ioctl(self.near, termios.FIONREAD, b"\0" * 4)
            idle = not struct.unpack("i", left)[0]
            if count > 3 and (idle or not self.transport.is_reading()):
                return
        check(False, "the socket is not read")

    def compare(self) -> None:
        """Let all come that may, then see whether all agree."""
        model, wanted = self.model, None
        self.settle()
        while True:
            if self.pending and wanted is None:
                task, method, what = self.pending
                wanted = model.answer(method, what)
                model.paused &= wanted is not None
            if model.paused or not (model.wire or model.wire_eof):
                break
            model.feed(model.wire)
            model.wire = b""
            if not model.paused:
                model.eof |= model.wire_eof
                model.wire_eof = False
        if wanted is not None:
            check(task.done(), "waits", method, what, wanted)
            check(same(task, wanted), method, what, task, wanted)
            self.pending = None
        elif self.pending:
            check(not task.done(), "too early", method, what, task)
        check(self.reader.at_eof() == (model.eof and not model.held))
        reading = self.transport.is_reading()
        check(reading is not model.paused, "paused", reading)

    def start(self, method: str, what: Any) -> None:
        note(method, what)
        words = () if method == "readline" else (what,)
        blocks, self.model.blocks = self.model.blocks, b""
        task = self.loop.create_task(getattr(self.reader, method)(*words))
        if self.pending is None:
            self.pending = (task, method, what)
            return
        wanted = self.model.answer(method, what)
        self.model.blocks = blocks
        self.settle()
        check(task.done(), "a second one waits", method, what)
        if wanted is None:
            check(isinstance(task.exception(), RuntimeError), task)
        else:
            check(same(task, wanted), method, what, task, wanted)

    def step(self) -> None:
        tape, model, reader = self.tape, self.model, self.reader
        op = tape.byte() % 12
        # A look, or a second read that is refused, makes it a plain reader.
        self.plain |= type(reader) is asyncio.StreamReader
        method = self.pending[1] if self.pending else ""
        searching = self.plain and method in ("readuntil", "readline")
        if op < 4 and (self.pending is None or (op < 2 and not searching)):
            self.start(tape.pick(("read", "readexactly")), tape.size() - 2)
        elif op < 6 and self.pending is None:
            self.start("readuntil", bytes(text(tape)[:5]))
        elif op == 6 and self.pending is None:
            self.start("readline", b"")
        elif op == 7 and self.pending:
            note("cancel")
            self.pending[0].cancel()
            self.settle()
            check(self.pending[0].cancelled())
            self.pending = None
        elif op == 8:
            look = tape.pick(LOOKS)
            note(look)
            look(reader)
        elif op == 9 and tape.byte() % 8 == 0:
            self.end()
        elif not (model.eof or model.wire_eof):
            self.send(op)

    def end(self) -> None:
        model, tape = self.model, self.tape
        if model.eof or model.wire_eof:
            return
        if tape.byte() % 4 == 0 and model.failed is None:
            note("set_exception")
            model.failed = ZeroDivisionError()
            self.reader.set_exception(model.failed)
        elif model.wire or tape.byte() % 2:
            note("shutdown")
            self.peer.shutdown(socket.SHUT_WR)
            model.wire_eof = True
        else:
            note("feed_eof")
            self.reader.feed_eof()
            model.eof = True

    def send(self, op: int) -> None:
        for _ in range(self.tape.byte() % 3 + 1):
            data = text(self.tape)
            note("feed_data" if op % 2 else "send", len(data), data)
            if op % 2 and not self.model.wire:
                self.reader.feed_data(data)
                self.model.feed(data)
            elif data and len(self.model.wire) + len(data) < ONE_READ:
                try:
                    sent = self.peer.send(data)
                except BlockingIOError:
                    return
                self.model.wire += data[:sent]

    def close(self) -> None:
        self.transport.abort()
        if self.pending:
            self.pending[0].cancel()
        for _ in range(3):
            one_iteration(self.loop)
        self.peer.close()


def start() -> Run:
    """Make the loop that all inputs share."""
    use_asyncio = os.environ.get("FUZZ_ON_ASYNCIO")
    loop: Any = (asyncio if use_asyncio else fastloop).new_event_loop()
    reports: list[Any] = []
    loop.set_exception_handler(lambda _, context: reports.append(context))

    def run(tape: Tape) -> None:
        case = Case(loop, tape)
        while tape:
            case.step()
            case.compare()
        case.close()
        check(not reports, reports)

    return run
